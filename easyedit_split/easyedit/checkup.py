"""What `doctor` says of EasyEdit: where it is, which layout, what it lacks. Nothing of it is imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .importhook import is_importable
from .registration import HOME_VARIABLE, add_host_to_path, host_is_found

_NEEDED = (
    "hydra",
    "omegaconf",
    "einops",
    "sklearn",
    "pandas",
    "nltk",
    "openai",
    "dotenv",
    "sentencepiece",
    "accelerate",
)


def describe_host() -> str:
    """One or two sentences."""
    add_host_to_path()
    if not host_is_found():
        return (
            f"not found; everything but the plugin works without it. To use it: git clone "
            f"https://github.com/zjunlp/EasyEdit, then set {HOME_VARIABLE} to the clone"
        )
    spec = importlib.util.find_spec("steer")
    folder = Path(str(next(iter(spec.submodule_search_locations or ())))) if spec else Path()
    missing = [name for name in _NEEDED if not is_importable(name)]
    lacks = f'; it lacks {", ".join(missing)}: pip install "easyedit-split[easyedit]"' if missing else ""
    return f"{folder}, {_layout(folder)}{lacks}"


def _layout(folder: Path) -> str:
    registry = folder / "utils" / "alg_dict.py"
    if not registry.is_file():
        return "a layout that is not known here (no utils/alg_dict.py)"
    text = registry.read_text(encoding="utf-8")
    if "METHOD_FNS" in text:
        return "lazy registry"
    package = folder / "vector_generators" / "__init__.py"
    empty = not package.is_file() or "from ." not in package.read_text(encoding="utf-8")
    if empty and "from ..vector_generators import" in text:
        return "eager registry that does not import as it is: `python -m easyedit_split run` mends it"
    return "eager registry"
