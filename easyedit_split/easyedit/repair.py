"""What must be mended from outside before EasyEdit can be imported.

Two defects, each mended only where it is there:
the newest commit's registry asks two packages for names that their empty `__init__` does not have, and
the paper's release imports `sae_lens`, which only two of EasyEdit's own methods use.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import HostError
from .importhook import is_importable

PACKAGES = ("steer.vector_generators", "steer.vector_appliers")
SAE_MODULES = ("steer.vector_generators.sta.sae_utils", "steer.vector_generators.sae_feature.sae_utils")
_SAE_NAMES = ("sae_lens", "sae_lens.toolkit", "sae_lens.toolkit.pretrained_sae_loaders")
_DEFINITION = re.compile(r"^(class|def) +(\w+)", re.MULTILINE)


def provide_missing_names(package: ModuleType) -> bool:
    """Give `package` a module-level `__getattr__` (PEP 562) for the names the registry asks it for.

    Does nothing, and returns False, where the package has every one of those names itself.
    """
    missing = sorted(_names_asked_of(package) - set(vars(package)))
    if not missing or "__getattr__" in vars(package):
        return False
    found = definitions(_folder(package), package.__name__)

    def __getattr__(name: str) -> Any:
        if name not in missing or name not in found:
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")
        kind, module_name = found[name]
        if kind == "def":
            return _lazy_function(module_name, name)
        return getattr(importlib.import_module(module_name), name)

    package.__getattr__ = __getattr__  # type: ignore[method-assign]
    return True


def _names_asked_of(package: ModuleType) -> set[str]:
    """The names that `steer/utils/alg_dict.py` imports straight from `package`."""
    import ast

    registry = _folder(package).parent / "utils" / "alg_dict.py"
    if not registry.is_file():
        return set()
    leaf = package.__name__.rpartition(".")[2]
    tree = ast.parse(registry.read_text(encoding="utf-8"))
    return {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module == leaf
        for alias in node.names
    }


def definitions(folder: Path, package: str) -> dict[str, tuple[str, str]]:
    """Name -> (class or def, module) of every top-level definition of `package` in `folder`, read without importing."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] == "__init__":
            continue
        module_name = ".".join((package, *parts))
        for kind, name in _DEFINITION.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, (kind, module_name))
    return found


def _lazy_function(module_name: str, name: str) -> Callable[..., Any]:
    """A stand-in that imports its module when it is called: these imports are circular, some need more packages."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module_name), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__module__ = module_name
    return call


def _folder(package: ModuleType) -> Path:
    paths = list(getattr(package, "__path__", ()))
    if not paths:
        raise HostError(f"{package.__name__} is not a folder, which no known EasyEdit is; check EASYEDIT_HOME.")
    return Path(paths[0])


class _Missing(ModuleType):
    """Stands for a module of `sae_lens` while a module of EasyEdit that imports it is loaded."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _placeholder(name)


def _placeholder(name: str) -> type:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise HostError(f"EasyEdit's own method needs {name} of sae_lens; install it with 'pip install sae_lens'.")

    return type(name, (), {"__init__": refuse})


@contextmanager
def _sae_placeholders() -> Iterator[None]:
    for name in _SAE_NAMES:
        module = _Missing(name)
        module.__path__ = []  # type: ignore[attr-defined]
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in _SAE_NAMES:
            sys.modules.pop(name, None)


def exec_without_sae_lens(run: Callable[[], None]) -> None:
    """Run a module's body; where `sae_lens` is not installed, placeholders stand for it meanwhile."""
    if is_importable("sae_lens"):
        run()
        return
    with _sae_placeholders():
        run()
