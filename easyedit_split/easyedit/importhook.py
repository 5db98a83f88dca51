"""Run a function when a module has been imported, whenever that happens.

EasyEdit takes eight to thirteen seconds to import, so registering must not import it.
A finder at the front of `sys.meta_path` lets the other finders find the module and runs our functions around its body.
(The base classes of `importlib.abc` are left out: they cost every Hydra program ten milliseconds.)
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

After = Callable[[ModuleType], None]
Around = Callable[[Callable[[], None]], None]


class _Watched:
    """The module's own loader, with our functions around and after the module's body."""

    def __init__(self, loader: Any, after: After | None, around: Around | None) -> None:
        self._loader = loader
        self._after = after
        self._around = around

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._around is None:
            self._loader.exec_module(module)
        else:
            self._around(lambda: self._loader.exec_module(module))
        if self._after is not None:
            self._after(module)


class ImportHook:
    """Callbacks by full module name; one instance stands in `sys.meta_path`."""

    def __init__(self) -> None:
        self._callbacks: dict[str, tuple[After | None, Around | None]] = {}

    def watch(self, name: str, after: After | None = None, around: Around | None = None) -> None:
        """Have `around` run the body of module `name` and `after` follow; `after` runs now if it is imported."""
        self._callbacks[name] = (after, around)
        module = sys.modules.get(name)
        if module is not None and after is not None and _is_loaded(module):
            after(module)

    def install(self) -> None:
        """Put the hook in front of the other finders, once."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Take the hook out again and forget the callbacks."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)  # type: ignore[arg-type]
        self._callbacks.clear()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._callbacks:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Watched(spec.loader, *self._callbacks[fullname])  # type: ignore[assignment]
                return spec
        return None


def _is_loaded(module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return not getattr(spec, "_initializing", False)


def is_importable(name: str) -> bool:
    """Whether a top-level module can be found, without importing it."""
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
