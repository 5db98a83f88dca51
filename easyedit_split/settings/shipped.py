"""Where the hyper-parameter files lie that ship with the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import ConfigError, nearest

PACKAGE = "easyedit_split.hparams"


def hparams_root() -> Path:
    """The folder `hparams/`: inside the installed package, or beside it in a source tree."""
    if is_installed():
        spec = importlib.util.find_spec(PACKAGE)
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[2] / "hparams"


def is_installed() -> bool:
    """Whether the files are part of the importable package (`pkg://easyedit_split.hparams`)."""
    return importlib.util.find_spec(PACKAGE) is not None


def hparams_path(name: str) -> str:
    """The path of a shipped file, by its name without suffix: `demo/reviews/split_vector`.

    Raises:
        ConfigError: there is no such file; the message names the nearest one.
    """
    root = hparams_root()
    path = root / f"{name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        names = [str(p.relative_to(root).with_suffix("")).replace("\\", "/") for p in root.rglob("*.yaml")]
        shown = nearest(name, names) if len(names) < 8 else _nearest_or_models(name, names)
        raise ConfigError(f"no hyper-parameter file named {name!r} ships with this package{shown}.")
    return str(path)


def _nearest_or_models(name: str, names: list[str]) -> str:
    hint = nearest(name, names)
    if "did you mean" in hint:
        return hint
    models = sorted({known.split("/")[0] for known in names})
    return f"; there are files for the models {', '.join(models)}"
