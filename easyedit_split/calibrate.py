"""From sweeps to the strength that a change keeps (`Calibration`): one place for writing it and for finding it.

A change's strength is the one in its own file; where there is none, what the sweep beside it recommends.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .analysis.pipeline import Analysis, analyse
from .changes.calibration import Calibration, Range
from .changes.provenance import source_of
from .errors import ArtifactError, FitError
from .folders import TEST, changes_in, same_change
from .sweeps.table import SweepTable, model_weights
from .texts import load_texts

if TYPE_CHECKING:
    from .changes.artifact import SteeringArtifact

BUDGET = 1.0  # nats of utility that a strength may cost where nobody said how many, as in the demo


def calibration_of(analysis: Analysis) -> Calibration:
    """The recommended strength of an analysis, as a change keeps it.

    Raises:
        FitError: there is no strength to keep; the sentence says why.
    """
    best = analysis.recommendation
    if best is None or not best.m:
        raise FitError(f"there is no strength to keep: {best.message if best else ' '.join(analysis.notes)}")
    header, swept = analysis.header, analysis.preference.m
    return Calibration(
        m1=float(best.m),
        m2=float(best.m),
        budget=float(best.max_utility_drop),
        swept=(float(swept.min()), float(swept.max())),
        reliable=bool(best.reliable),
        reason=best.message,
        reduction=analysis.reduction,
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        interval=best.interval,
        band=_band(analysis, best.m, best.max_utility_drop),
        texts=None if best.texts is None else (best.texts.low, best.texts.high),
        pairs=analysis.n_examples,
        pairs_sha256=str(header.get("pairs_sha256") or ""),
        model=model_weights(dict(header)) or "",
    )


def _band(analysis: Analysis, m: float, budget: float) -> Range | None:
    """The neighbouring swept strengths of which each costs no more than the budget, as measured, and `m`; they begin at
    the last one between 0 and `m`. None where that one costs more."""
    swept = analysis.preference.m
    known = ~np.isin(swept, analysis.measured.lost)
    allowed = known & np.array([analysis.measured_at(float(s))[1] <= budget + 1e-9 for s in swept])
    inner = swept[(swept * m >= 0) & (np.abs(swept) <= abs(m))]
    if not len(inner):
        return None
    at = int(np.flatnonzero(swept == inner[np.argmax(np.abs(inner))])[0])
    if not allowed[at]:
        return None
    low = high = at
    while low > 0 and allowed[low - 1]:
        low -= 1
    while high < len(swept) - 1 and allowed[high + 1]:
        high += 1
    return min(float(swept[low]), m), max(float(swept[high]), m)


def write_calibration(folder: str | Path, table: SweepTable, analysis: Analysis) -> tuple[Path, Calibration]:
    """Keep the strength of `analysis`, of the sweep `table`, in the change in `folder` that was swept.

    The change itself stays as it is, and so does its id.

    Raises:
        FitError: see `calibration_of`; or the sweep may be of another model.
        ArtifactError: the change is not there, or cannot be written.
    """
    from .changes.artifact import SteeringArtifact

    folder = Path(folder)
    if table.header.get("any_model"):
        raise FitError("the sweep was made with --any-model, and its strength need not be that of the change's own")
    calibration = calibration_of(analysis)
    source = _source(table)
    held = changes_in(folder) if folder.is_dir() else {}
    file = next((file for file, kept in held.items() if source and same_change(kept, source)), None)
    if file is None:
        raise ArtifactError(f"{folder} does not hold the change that was swept: name its folder with --artifact DIR")
    return replace(SteeringArtifact.load(file), calibration=calibration).save(folder), calibration


def find_calibration(artifact: SteeringArtifact, folder: Path | None) -> tuple[Calibration | None, Range | None]:
    """The strength of a change that lies in `folder`, and the strengths it was swept over; None where not known.

    Args:
        folder: None where nothing lies beside the change (see `formats.hub.Place.home`).

    Raises:
        ArtifactError: a broken sweep, or one of another change.
    """
    if artifact.calibration is not None:
        return artifact.calibration, artifact.calibration.swept
    file = None if folder is None else folder / TEST
    if file is None or not file.exists():
        return None, None
    table = SweepTable.load(file)
    made_with = _source(table)
    if not same_change(made_with, source_of(artifact)):
        raise ArtifactError(f"{file} is the sweep of another change than the artifact beside it: sweep again")
    swept = float(table.factors.min()), float(table.factors.max())
    if table.header.get("any_model"):
        return None, swept
    try:
        return calibration_of(analyse(table, BUDGET, texts=load_texts(file, table))), swept
    except FitError:
        return None, swept


def _source(table: SweepTable) -> Mapping[str, Any]:
    found = table.header.get("artifact")
    return found if isinstance(found, dict) else {}
