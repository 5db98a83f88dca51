"""A change that the page has a dial for: the artifact, where it lies, and what its sweep says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError
from ..formats.hub import LAYERS, Place, find
from ..run_folder import own_sweep
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
    sweep; `any_model`: it may be used with other weights than it was made for; `repository`: its name on the hub, where
    `folder` is a copy of that."""

    name: str
    folder: Path
    layer: int | tuple[int, ...] | None
    artifact: SteeringArtifact
    table: SweepTable | None
    curves: dict[str, Any] | None
    any_model: bool = False
    repository: str = ""

    @property
    def range(self) -> tuple[float, float]:
        """Ends of the dial: the swept range, of the sweep or as the change keeps it; without one twice the largest
        factor of training."""
        if self.table is not None:
            return float(min(self.table.factors.min(), 0)), float(max(self.table.factors.max(), 0))
        if self.artifact.calibration is not None:
            return min(self.artifact.calibration.swept[0], 0.0), max(self.artifact.calibration.swept[1], 0.0)
        factors = (self.artifact.origin.get("config") or {}).get("steering_factors") or [UNSWEPT / 2]
        end = 2 * max(map(abs, factors))
        return -end, end

    @property
    def home(self) -> str:
        """Its folder, or its name on the hub."""
        return self.repository or str(self.folder)

    @property
    def file(self) -> str:
        """What names it alone: its home, or its file where the folder holds several."""
        return self.home if self.layer is None else str(self.folder / self.artifact.file_name)

    @property
    def best(self) -> dict[str, Any] | None:
        """The strength to use: that of the sweep, or without one what the change keeps; None where there is none."""
        kept = self.artifact.calibration
        if self.curves is not None:
            return self.curves["recommended"]  # type: ignore[no-any-return]
        if kept is None or kept.m1 != kept.m2:
            return None
        return {"m": kept.m, "interval": kept.interval, "reliable": kept.reliable}

    @property
    def advice(self) -> str:
        """What is said of that strength."""
        if self.curves is not None:
            return str(self.curves["advice"])
        kept = self.artifact.calibration
        said = " and no strength to recommend." if kept is None else f"; the change keeps a strength: {kept}."
        return f"No sweep lies beside this change, so there are no curves{said}"

    def described(self) -> dict[str, Any]:
        """What the page is told."""
        low, high = self.range
        return {
            "name": self.name, "folder": self.home, "form": self.artifact.form, "site": str(self.artifact.site),
            "concept": self.artifact.origin.get("concept"), "positions": self.artifact.positions.rule,
            "low": low, "high": high, "step": _step(high - low), "curves": self.curves,
            "best": self.best, "advice": self.advice,
        }  # fmt: skip


def find_changes(
    runs: Iterable[str | Path], max_utility_drop: Budget = 1.0, any_model: bool = False
) -> list[DialledChange]:
    """The changes in `runs`: a run's folder, a change's folder, a file, or a repository of the hub; each with the sweep
    that lies beside it, which on the hub there is none.

    Raises:
        ArtifactError: no change there, one given twice, or a broken file.
    """
    found: list[DialledChange] = []
    for place in map(find, runs):
        files = place.files if place.repository or place.path.is_file() else _files(place.path)
        if not files:
            raise ArtifactError(f"{place} holds no change: give the folder that train wrote, or a run's folder")
        for file in files:
            with place.named():
                found.append(_change(file, place, max_utility_drop, any_model))
    if len({(c.folder.resolve(), c.artifact.site) for c in found}) < len(found):
        raise ArtifactError("a change is given twice: name each run once")
    return _named_apart(found)


def _change(file: Path, place: Place, max_utility_drop: Budget, any_model: bool) -> DialledChange:
    from ..changes.artifact import SteeringArtifact

    folder, several = file.parent, len(list(file.parent.glob(LAYERS))) > 1
    artifact = SteeringArtifact.load(file)
    found = own_sweep(None if place.repository else folder, artifact)
    table = found[1] if found else None
    curves = None if found is None else curves_of(found[1], max_utility_drop, load_texts(*found))
    layers = tuple(dict.fromkeys(site.layer for site in artifact.site.sites))
    layer = (layers[0] if len(layers) == 1 else layers) if several else None
    artifact = artifact.for_any_model() if any_model else artifact
    name = _name(file, place)
    full_name = f"{name} layer {artifact.site.layers}" if several else name
    return DialledChange(full_name, folder, layer, artifact, table, curves, any_model, place.repository)


def _files(run: Path) -> list[Path]:
    """Artifacts below a folder, but for what training kept of a run that failed."""
    return sorted(f for f in run.rglob(LAYERS) if f.parent.name != "last_good")


def _name(file: Path, place: Place) -> str:
    folder, run = file.parent, place.path
    if place.repository:
        return place.name
    return str(folder.relative_to(run)) if run.is_dir() and folder != run else folder.resolve().name


def _named_apart(changes: list[DialledChange]) -> list[DialledChange]:
    """Where two have one name, the folder's path instead."""
    names = [c.name for c in changes]
    return [replace(c, name=c.home) if names.count(c.name) > 1 else c for c in changes]


def _step(width: float) -> float:
    """A power of ten, at most a `STEPS`th of the width."""
    return 10.0 ** math.floor(math.log10(width / STEPS)) if width else 0.01
