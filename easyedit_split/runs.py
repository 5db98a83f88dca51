"""A run's folder: one subfolder a method, with its sweeps; everything said of them is computed from these files.

`<run>/<method>/sweep.parquet` (test pairs), and where they were made `sweep_train.parquet` and `activations.npz`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .analysis.analysis import Analysis, analyse
from .analysis.manifold import MeasuredDecay, fit_manifold, measured_decay
from .analysis.report import Report, write_report
from .analysis.splits import Transfer, transfer
from .errors import ArtifactError, FitError
from .files import write_atomically
from .sweeps import SweepTable

TEST, TRAIN, ACTIVATIONS = "sweep.parquet", "sweep_train.parquet", "activations.npz"


def save_activations(path: Path, factors: Any, activations: list[np.ndarray]) -> Path:
    """Write what `collect_activations` gave, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, factors=np.asarray(factors, float), activations=np.stack(activations))

    return write_atomically(path, write)


def report_run(folder: Path, max_utility_drop: float = 1.0, title: str = "", seed: int = 0) -> Report:
    """Analyse every sweep of a run and write its report into the same folder.

    Raises:
        ArtifactError: no sweeps there, or a broken file.
    """
    files = sorted(folder.rglob(TEST)) if folder.is_dir() else []
    if not files:
        raise ArtifactError(f"{folder} holds no {TEST}: give the folder of a run, or run demo or sweep first")
    tables = {_name(folder, file): SweepTable.load(file) for file in files}
    analyses = {name: analyse(table, max_utility_drop, seed=seed) for name, table in tables.items()}
    for name, table in tables.items():
        if table.reduction == "sum":
            means = _defined(table.reduced("mean"), max_utility_drop, seed)
            analyses.update({f"{name}, token mean": means} if means else {})
    return write_report(
        folder,
        analyses,
        title=title or f"Steering report: {folder.name}",
        context=_context(next(iter(tables.values())), max_utility_drop, seed),
        transfers=_transfers(files, tables, folder),
        manifolds=_manifolds(files, analyses, folder),
    )


def _name(folder: Path, file: Path) -> str:
    return str(file.parent.relative_to(folder)) if file.parent != folder else folder.name


def _defined(table: SweepTable, max_utility_drop: float, seed: int) -> Analysis | None:
    try:
        return analyse(table, max_utility_drop, seed=seed)
    except FitError:
        return None


def _transfers(files: list[Path], tables: Mapping[str, SweepTable], folder: Path) -> dict[Any, Transfer]:
    found: dict[Any, Transfer] = {}
    for file in files:
        if (file.parent / TRAIN).exists():
            name, train = _name(folder, file), SweepTable.load(file.parent / TRAIN)
            for label, reduction in ((name, "sum"), (f"{name}, token mean", "mean")):
                try:
                    found[label] = transfer(train.reduced(reduction), tables[name].reduced(reduction))
                except FitError:
                    continue
    return found


def _manifolds(files: list[Path], analyses: Mapping[str, Analysis], folder: Path) -> dict[Any, MeasuredDecay]:
    found: dict[Any, MeasuredDecay] = {}
    for file in files:
        path = file.parent / ACTIVATIONS
        if not path.exists():
            continue
        try:
            with np.load(path, allow_pickle=False) as data:
                factors, activations = data["factors"], data["activations"]
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise ArtifactError(f"{path} is broken ({error}): run again") from None
        clean = activations[int(np.argmin(np.abs(factors)))]
        name = _name(folder, file)
        found[name] = measured_decay(fit_manifold(clean), factors, list(activations), analyses[name].utility_fit)
    return found


def _context(table: SweepTable, max_utility_drop: float, seed: int) -> dict[str, str]:
    model, artifact = table.header.get("model", {}), table.header.get("artifact", {})
    origin = artifact.get("origin", {})
    versions = ", ".join(f"{k} {v}" for k, v in table.header.get("versions", {}).items())
    return {
        "model": f"{Path(str(model.get('name', 'unknown'))).name} ({model.get('architecture', 'unknown')})",
        "site": str(artifact.get("site", "unknown")),
        "objective": str(origin.get("objective", "unknown")),
        "training pairs": str(origin.get("pairs", "unknown")),
        "training seed": str(origin.get("config", {}).get("seed", "none")),
        "test pairs": str(table.loss_pos.shape[1]),
        "budget": f"{max_utility_drop:g} nats of utility against m = 0",
        "bootstrap": f"1,000 draws over examples, seed {seed}",
        "versions": versions,
    }
