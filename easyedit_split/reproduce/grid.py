"""The cells of a grid: which there are, what each depends on, and whether its result still stands."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import __version__
from ..data.pairs import pairs_hash
from ..errors import ConfigError
from ..settings.files import load_hparams
from ..settings.hyperparameters import Hyperparameters
from .judging import judge_of, judged_hash, rubrics_of
from .prepare import Prepared
from .settings import GridSettings

FORMAT = 1
VANILLA = "vanilla"
# settings that a cell's numbers depend on
_SHARED = (
    "n_held_out", "n_train_sweep", "points", "factors", "strength", "budget", "n_boot", "max_new_tokens", "split_seed",
    "dtype",
)  # fmt: skip
# keys of an hparams file that say where things are, not what is computed
_PLACES = (
    "source",
    "output_dir",
    "model_name_or_path",
    "train_data",
    "test_data",
    "device",
    "device_map",
    "seed",
    "overwrite",
)


@dataclass(frozen=True)
class Cell:
    """One entry of the grid. `form` is empty for vanilla; `concept_id` None for a data set of one concept."""

    dataset: str
    concept_id: int | None
    method: str
    form: str
    seed: int
    hparams: str = ""

    @property
    def key(self) -> str:
        """`concepts-2/split_vector/s0`: its name for `--only`, and its folder."""
        where = self.dataset if self.concept_id is None else f"{self.dataset}-{self.concept_id}"
        return f"{where}/{self.method}{'_' + self.form if self.form else ''}/s{self.seed}"


def hparams_files(settings: GridSettings) -> dict[str, list[Path]]:
    """Data set -> its hyper-parameter files, `<method>_<form>.yaml`.

    Raises:
        ConfigError: the folder holds none.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(Path(settings.folder).glob("*/*.yaml")):
        found.setdefault(path.parent.name, []).append(path)
    if not found:
        raise ConfigError(f"{settings.folder} holds no <data set>/<method>_<form>.yaml: give a folder of hparams/")
    return found


def dataset_cells(settings: GridSettings, dataset: str, files: Sequence[Path], ids: Sequence[int | None]) -> list[Cell]:
    """Every cell of a data set with these concepts. Vanilla has one seed: nothing of it is drawn."""
    cells = []
    for concept_id in ids:
        cells.append(Cell(dataset, concept_id, VANILLA, "", settings.seeds[0]))
        for path in files:
            form = load_hparams(path).intervention_method
            method = path.stem.removesuffix(f"_{form}")
            cells += [Cell(dataset, concept_id, method, form, seed, str(path)) for seed in settings.seeds]
    return cells


def selected(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells whose key one of the patterns fits (`reviews`, `*/split_*`, `traits/sft_lora/s0`); all without any.

    Raises:
        ConfigError: a pattern that fits no cell.
    """
    if not only:
        return list(cells)
    chosen: set[str] = set()
    for pattern in only:
        fitting = {c.key for c in cells if _fits(c, pattern)}
        if not fitting:
            raise ConfigError(f"--only {pattern!r} fits no cell: a cell is called, for example, {cells[-1].key}")
        chosen |= fitting
    return [c for c in cells if c.key in chosen]


def may_hold(dataset: str, only: Sequence[str]) -> bool:
    """Whether a pattern can fit a cell of this data set: the others need not be read."""
    firsts = [pattern.split("/")[0] for pattern in only]
    return not only or any(fnmatch.fnmatchcase(dataset, f) or f.rpartition("-")[0] == dataset for f in firsts)


def _fits(cell: Cell, pattern: str) -> bool:
    parts = cell.key.split("/")
    prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch.fnmatchcase(name, pattern) for name in [*prefixes, cell.dataset])


def hyperparameters_of(cell: Cell, layers: Sequence[int] = ()) -> Hyperparameters | None:
    """The cell's file with the cell's seed, and with `layers` where they are given; None for vanilla."""
    overrides = {"seed": cell.seed, **({"layers": list(layers)} if layers else {})}
    return load_hparams(cell.hparams, overrides=overrides) if cell.hparams else None


def inputs_hash(
    cell: Cell, hp: Hyperparameters | None, settings: GridSettings, data: Prepared, fingerprint: str
) -> str:
    """SHA-256 of everything a cell's numbers depend on: settings, data, model, this package's version."""
    values = {k: v for k, v in asdict(hp).items() if k not in _PLACES} if hp else {}
    parts = {
        "format": FORMAT, "version": __version__, "cell": [cell.key, cell.seed], "hparams": values,
        "settings": {k: getattr(settings, k) for k in _SHARED}, "model": fingerprint,
        "data": [pairs_hash(part) for part in (data.train, data.held_out, data.test)],
    }  # fmt: skip
    judge = judge_of(settings, cell.dataset)
    if hp and settings.strength == "grid" and rubrics_of(judge, cell.dataset):  # it decides on the strength
        parts["judge"] = judged_hash(judge, cell.dataset, [])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
