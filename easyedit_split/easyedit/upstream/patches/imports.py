"""The method registry imports again."""

from __future__ import annotations

import ast
from pathlib import Path

from ...repair import definitions
from ..edit import Refused, Source
from ..patch import NotNeeded, Patch

PACKAGES = ("vector_generators", "vector_appliers")
ON_CALL = '''
import importlib


def _on_call(module, name):
    """Import a method's module when the method is called: these imports are circular, and some need more packages."""

    def call(*args, **kwargs):
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    call.__name__ = name
    return call


'''


def apply(root: Path) -> None:
    source = Source(root, "steer/utils/alg_dict.py")
    asked = [node for node in source.tree.body if isinstance(node, ast.ImportFrom) and node.module in PACKAGES]
    if not asked:
        raise NotNeeded("the registry does not import from the two packages")
    known: dict[str, tuple[str, str]] = {}
    for package in PACKAGES:
        folder = root / "steer" / package
        if "import" in _code(folder / "__init__.py"):
            raise NotNeeded("the two packages import their methods themselves")
        known |= definitions(folder, f"steer.{package}")
    for node in asked:
        missing = [alias.name for alias in node.names if alias.name not in known]
        if missing:
            raise Refused(f"{missing[0]} is defined nowhere below steer/{node.module}")
        source.replace(node, "\n".join(_line(alias.name, *known[alias.name]) for alias in node.names))
    source.before(asked[0], ON_CALL)
    source.save()


def _line(name: str, kind: str, module: str) -> str:
    if kind == "class":
        return f"from {module.replace('steer', '.', 1)} import {name}"
    return f'{name} = _on_call("{module}", "{name}")'


def _code(path: Path) -> str:
    tree = ast.parse(path.read_bytes())
    return " ".join(type(node).__name__.lower() for node in ast.walk(tree))


PATCH = Patch(
    1,
    "imports",
    "Fix the steer method registry import",
    "`steer/utils/alg_dict.py` imports names from two packages whose `__init__` is empty, so every EasyEdit2 script "
    "stops with an ImportError. Import the hyper-parameter classes from their own modules, and the methods when they "
    "are called.",
    apply,
    cures=("test_registry_imports", "test_every_method_is_found"),
    defects=("test_newest_commit_does_not_import",),
)
