"""A run's folder: one subfolder a method, with its sweeps; everything said of them is computed from these files.

`<run>/<method>/sweep.parquet` (test pairs), and where they were made `sweep_train.parquet`, `activations.npz`,
`promoted.json` and `scores.json` (of generations at the recommended strength).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .analysis.generalisation import Transfer, transfer
from .analysis.logodds import nats
from .analysis.manifold import MeasuredDecay, fit_manifold, measured_decay
from .analysis.pipeline import Analysis, analyse
from .analysis.report import Report, write_report
from .analysis.tables import Key, Table
from .errors import ArtifactError, FitError
from .storage.files import write_atomically, write_text
from .sweeps.table import SweepTable

if TYPE_CHECKING:
    from .changes.artifact import SteeringArtifact

TEST, TRAIN, ACTIVATIONS = "sweep.parquet", "sweep_train.parquet", "activations.npz"
PROMOTED, SCORES = "promoted.json", "scores.json"


def save_activations(path: Path, factors: Any, activations: list[np.ndarray]) -> Path:
    """Write what `collect_activations` gave, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, factors=np.asarray(factors, float), activations=np.stack(activations))

    return write_atomically(path, write)


def save_promoted(path: Path, model: Any, tokenizer: Any, artifact: SteeringArtifact) -> Path | None:
    """Write the tokens that a change's `db` promotes under +m and under -m; None for a change without `db`."""
    from .scoring.promoted_tokens import promoted_tokens

    if artifact.delta.bias_term() is None:
        return None
    found = {
        name: [[token.text, token.score] for token in promoted_tokens(model, tokenizer, artifact, sign=sign)]
        for name, sign in (("m > 0", 1.0), ("m < 0", -1.0))
    }
    return write_text(path, json.dumps(found, ensure_ascii=False))


def report_run(folder: str | Path, max_utility_drop: float = 1.0, title: str = "", seed: int = 0) -> Report:
    """Analyse every sweep of a run and write its report into the same folder.

    Raises:
        ArtifactError: no sweeps there, or a broken file.
    """
    folder = Path(folder)
    files = sorted(folder.rglob(TEST)) if folder.is_dir() else []
    if not files:
        raise ArtifactError(f"{folder} holds no {TEST}: give the folder of a run, or run demo or sweep first")
    tables = {_name(folder, file): SweepTable.load(file) for file in files}
    analyses: dict[Key, Analysis] = {
        name: analyse(table, max_utility_drop, seed=seed) for name, table in tables.items()
    }
    for name, table in tables.items():
        if table.reduction == "sum":
            means = _defined(table.reduced("mean"), max_utility_drop, seed)
            if means is not None:
                analyses[f"{name}, token mean"] = means
    return write_report(
        folder,
        analyses,
        title=title or f"Steering report: {folder.name}",
        context=_context(tables, max_utility_drop, seed, next(iter(analyses.values())).n_boot),
        transfers=_transfers(files, tables, folder),
        scores=_scores(files, folder),
        manifolds=_manifolds(files, analyses, folder),
        more=_promoted(files, folder),
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


def _manifolds(files: list[Path], analyses: Mapping[Key, Analysis], folder: Path) -> dict[Any, MeasuredDecay]:
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


def _scores(files: list[Path], folder: Path) -> dict[Key, Mapping[str, float]]:
    found: dict[Key, Mapping[str, float]] = {}
    for file in files:
        path = file.parent / SCORES
        if path.exists():
            try:
                found[_name(folder, file)] = {str(k): float(v) for k, v in json.loads(path.read_text("utf-8")).items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise ArtifactError(f"{path} is broken ({error}): run again") from None
    return found


def _promoted(files: list[Path], folder: Path) -> list[Table]:
    rows: list[tuple[str, ...]] = []
    for file in files:
        path = file.parent / PROMOTED
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                rows += [(_name(folder, file), side, *(repr(text) for text, _ in found[side])) for side in found]
            except (ValueError, TypeError, AttributeError) as error:
                raise ArtifactError(f"{path} is broken ({error}): run again") from None
    if not rows:
        return []
    heads = ("Method", "under", *map(str, range(1, max(map(len, rows)) - 1)))
    return [Table("promoted", "Tokens that db promotes through the unembedding, best first", heads, tuple(rows))]


def _context(tables: Mapping[str, SweepTable], max_utility_drop: float, seed: int, n_boot: int) -> dict[str, str]:
    """What was run, for the head of the report."""
    first = next(iter(tables.values()))
    model = first.header.get("model", {})
    origins = {name: table.header.get("artifact", {}).get("origin", {}) for name, table in tables.items()}
    context = {
        "model": f"{Path(str(model.get('name', 'unknown'))).name} ({model.get('architecture', 'unknown')})",
        "device": f"{first.header.get('device', 'unknown')}, {first.header.get('dtype', 'unknown dtype')}",
        "site": str(first.header.get("artifact", {}).get("site", "unknown")),
        "test pairs": str(first.loss_pos.shape[1]),
        "budget": f"{nats(max_utility_drop)} of utility against m = 0",
        "bootstrap": f"{n_boot:,} draws over examples, seed {seed}",
        "versions": ", ".join(f"{k} {v}" for k, v in first.header.get("versions", {}).items()),
        "commit": _commit(),
    }
    return context | {f"training of {name}": _training(origin) for name, origin in origins.items()}


def _training(origin: Mapping[str, Any]) -> str:
    objective, config = dict(origin.get("objective", {})), origin.get("config", {})
    name = objective.pop("name", "unknown")
    settings = {**objective, **{k: config[k] for k in ("n_epochs", "lr", "steering_factors", "seed") if k in config}}
    return f"{name}, {origin.get('pairs', '?')} pairs, " + ", ".join(f"{k} {v}" for k, v in settings.items())


def _commit() -> str:
    """The commit of this package, where it runs from its own git checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return "not a git checkout"
    found = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
