"""Where the hyper-parameter files lie that ship with the package."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

from ..errors import ConfigError, nearest

PACKAGE = "easyedit_split.hparams"
ANY = "any"  # the folder of files that suit themselves to the model
# blocks of the models that the files of a folder were made for
DEPTHS = {
    "demo": 6, "gemma-2-2b-it": 26, "gemma-2-9b-it": 42, "llama-3.1-8b-instruct": 32, "qwen2.5-0.5b-instruct": 24,
    "qwen2.5-7b-instruct": 28, "smollm2-135m-instruct": 30,
}  # fmt: skip


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
    """The nearest file of the model named; for a model without files those that serve any, by the same ending."""
    models = sorted({known.split("/")[0] for known in names})
    parts = name.removesuffix(".yaml").split("/")
    if len(parts) == 3 and parts[0] not in models:
        ending = "/".join(parts[1:])
        known = sorted(n for n in names if n.startswith(f"{ANY}/"))
        best = difflib.get_close_matches(f"{ANY}/{ending}", known, n=1, cutoff=0.0)[0]
        likely = difflib.get_close_matches(parts[0], models, n=1, cutoff=0.85)
        hint = f"; did you mean {likely[0] + '/' + ending!r}?" if likely and f"{likely[0]}/{ending}" in names else ";"
        return f"{hint} {best!r} serves a model without files of its own (files for: {', '.join(models)})".replace(
            ";  ", "; "
        )
    hint = nearest(name, [n for n in names if n.startswith(f"{parts[0]}/")] or names)
    return hint if "did you mean" in hint else f"; there are files for the models {', '.join(models)}"


def made_for(source: str) -> tuple[str, int] | None:
    """Model and number of blocks that a shipped file was made for, by the folder in its name; None where it is none."""
    known = [part for part in Path(source).parts if part in DEPTHS]
    return (known[-1], DEPTHS[known[-1]]) if known else None
