"""A change that the page has a dial for: the artifact, where it lies, and what its sweep says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError
from ..folders import same_change, sweeps_in
from ..run_folder import load_sweeps
from ..sweeps.table import SweepTable
from ..texts import load_texts
from .curves import curves_of

if TYPE_CHECKING:
    from ..analysis.budget import Budget
    from ..changes.artifact import SteeringArtifact

UNSWEPT = 4.0  # without a sweep and without settings of training, the dial goes this far
STEPS = 400  # at least so many from one end of a dial to the other


@dataclass(frozen=True, eq=False)
class DialledChange:
    """`layer`, or all of them, is named where `folder` holds several changes; `curves` and `table` are None without a
    sweep; `any_model`: it may be used with other weights than it was made for."""

    name: str
    folder: Path
    layer: int | tuple[int, ...] | None
    artifact: SteeringArtifact
    table: SweepTable | None
    curves: dict[str, Any] | None
    any_model: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """Ends of the dial: the swept range; without a sweep twice the largest factor of training."""
        if self.table is not None:
            return float(min(self.table.factors.min(), 0)), float(max(self.table.factors.max(), 0))
        factors = (self.artifact.origin.get("config") or {}).get("steering_factors") or [UNSWEPT / 2]
        end = 2 * max(map(abs, factors))
        return -end, end

    @property
    def file(self) -> Path:
        """Where the change lies: its folder, or its file where the folder holds several."""
        return self.folder if self.layer is None else self.folder / self.artifact.file_name

    def described(self) -> dict[str, Any]:
        """What the page is told."""
        low, high = self.range
        return {
            "name": self.name, "folder": str(self.folder), "form": self.artifact.form, "site": str(self.artifact.site),
            "concept": self.artifact.origin.get("concept"), "positions": self.artifact.positions.rule,
            "low": low, "high": high, "step": _step(high - low), "curves": self.curves,
        }  # fmt: skip


def find_changes(
    runs: Iterable[str | Path], max_utility_drop: Budget = 1.0, any_model: bool = False
) -> list[DialledChange]:
    """The changes in `runs`: a run's folder, a change's folder, or a file; each with the sweep that lies beside it.

    Raises:
        ArtifactError: no change there, one given twice, or a broken file.
    """
    found: list[DialledChange] = []
    for run in map(Path, runs):
        files = [run] if run.is_file() else _files(run)
        if not files:
            raise ArtifactError(f"{run} holds no change: give the folder that train wrote, or a run's folder")
        for file in files:
            found.append(_change(file, _name(file, run), max_utility_drop, any_model))
    if len({(c.folder.resolve(), c.artifact.site) for c in found}) < len(found):
        raise ArtifactError("a change is given twice: name each run once")
    return _named_apart(found)


def _change(file: Path, name: str, max_utility_drop: Budget, any_model: bool) -> DialledChange:
    from ..changes.artifact import SteeringArtifact

    folder, several = file.parent, len(list(file.parent.glob("layer_*.safetensors"))) > 1
    artifact = SteeringArtifact.load(file)
    swept, table = _own_sweep(folder, artifact)
    curves = None if table is None else curves_of(table, max_utility_drop, load_texts(swept, table))
    layers = tuple(dict.fromkeys(site.layer for site in artifact.site.sites))
    layer = (layers[0] if len(layers) == 1 else layers) if several else None
    artifact = artifact.for_any_model() if any_model else artifact
    full_name = f"{name} layer {artifact.site.layers}" if several else name
    return DialledChange(full_name, folder, layer, artifact, table, curves, any_model)


def _files(run: Path) -> list[Path]:
    """Artifacts below a folder, but for what training kept of a run that failed."""
    return sorted(f for f in run.rglob("layer_*.safetensors") if f.parent.name != "last_good")


def _own_sweep(folder: Path, artifact: SteeringArtifact) -> tuple[Path, SweepTable | None]:
    """The first sweep in the change's folder that is of this change, and its file."""
    from ..changes.provenance import source_of

    tables = load_sweeps(folder).items() if sweeps_in(folder) else ()
    source = source_of(artifact)
    own = ((file, t) for file, t in tables if same_change(t.header.get("artifact") or {}, source))
    return next(own, (folder, None))


def _name(file: Path, run: Path) -> str:
    folder = file.parent
    return str(folder.relative_to(run)) if run.is_dir() and folder != run else folder.resolve().name


def _named_apart(changes: list[DialledChange]) -> list[DialledChange]:
    """Where two have one name, the folder's path instead."""
    names = [c.name for c in changes]
    return [replace(c, name=str(c.folder)) if names.count(c.name) > 1 else c for c in changes]


def _step(width: float) -> float:
    """A power of ten, at most a `STEPS`th of the width."""
    return 10.0 ** math.floor(math.log10(width / STEPS)) if width else 0.01
