"""A run's folder: one subfolder a method, with its sweeps; everything said of them is computed from these files.

`<run>/<method>/sweep.parquet` (test pairs), further sweeps of the same change (`sweep-<settings>.parquet`), and where
they were made `sweep_train.parquet`, `activations.npz`, `promoted.json` and `scores.json` (of generations at the
recommended strength). A file that is of another change than the sweep beside it is refused.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .analysis.budget import Budget, budget_said
from .analysis.generalisation import Transfer, transfer
from .analysis.manifold import MeasuredDecay, fit_manifold, measured_decay
from .analysis.names import method_names
from .analysis.pipeline import Analysis, analyse
from .analysis.report import Report, write_report
from .analysis.tables import Key, Table
from .analysis.texts import SweptTexts
from .changes.provenance import source_of
from .errors import ArtifactError, FitError
from .folders import ACTIVATIONS, PROMOTED, SCORES, TEST, TRAIN, check_of_change, same_change, sweeps_in
from .storage.files import write_atomically, write_text
from .sweeps.table import SweepTable
from .texts import load_texts

if TYPE_CHECKING:
    from .changes.artifact import SteeringArtifact

AGAIN = "run sweep again with overwrite=true, or give each change a folder of its own"
STALE = "delete it, or make it again"


def load_sweeps(path: str | Path) -> dict[Path, SweepTable]:
    """The sweep of a file, or those of a folder, each checked against the change that lies beside it.

    Raises:
        ArtifactError: none there, a broken one, or one of another change.
    """
    path = Path(path)
    files = sweeps_in(path) if path.is_dir() else [path]
    if not files:
        raise ArtifactError(f"{path} holds no {TEST}: run sweep first, or give the file that it wrote")
    tables = {file: SweepTable.load(file) for file in files}
    for file, table in tables.items():
        check_of_change(file, _source(table), file.parent, AGAIN)
    return tables


def own_sweep(folder: Path | None, artifact: SteeringArtifact) -> tuple[Path, SweepTable] | None:
    """The first sweep in the change's folder that is of this change, and its file; None without one.

    Args:
        folder: None where nothing lies beside the change (see `formats.hub.Place.home`).

    Raises:
        ArtifactError: a broken sweep there, or one of a change that is not.
    """
    tables = load_sweeps(folder).items() if folder is not None and sweeps_in(folder) else ()
    return next((found for found in tables if same_change(_source(found[1]), source_of(artifact))), None)


def _source(table: SweepTable) -> dict[str, Any]:
    found = table.header.get("artifact")
    return found if isinstance(found, dict) else {}


def save_activations(path: Path, factors: Any, activations: list[np.ndarray], change: str = "") -> Path:
    """Write what `collect_activations` gave, atomically; `change` is the artifact's id."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            grid = np.asarray(factors, float)
            np.savez_compressed(file, factors=grid, activations=np.stack(activations), change=np.array(change))

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
    return write_text(path, json.dumps({"change": artifact.id, **found}, ensure_ascii=False))


def save_scores(path: Path, scores: Mapping[str, float], m: float, change: str) -> Path:
    """Write scores of generations at strength `m` of the change whose id is `change`."""
    return write_text(path, json.dumps({"change": change, "m": m, "scores": dict(scores)}))


def report_run(folder: str | Path, max_utility_drop: Budget = 1.0, title: str = "", seed: int = 0) -> Report:
    """Analyse every sweep of a run and write its report into the same folder.

    Raises:
        ArtifactError: no sweeps there, or a broken file.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ArtifactError(f"{folder} is a file: give the folder of a run")
    homes = sorted({file.parent for file in folder.rglob("sweep*.parquet") if sweeps_in(file.parent)})
    if not homes:
        raise ArtifactError(f"{folder} holds no {TEST}: give the folder of a run, or run demo or sweep first")
    swept = {home: load_sweeps(home) for home in homes}
    files: dict[str, Path] = {}
    for file in (file for found in swept.values() for file in found):
        files[_free(_name(folder, file), files)] = file
    tables = {name: swept[file.parent][file] for name, file in files.items()}
    texts = {name: load_texts(file, tables[name]) for name, file in files.items()}
    analyses: dict[Key, Analysis] = {
        name: analyse(table, max_utility_drop, seed=seed, texts=texts[name]) for name, table in tables.items()
    }
    names: dict[Key, str] = {**method_names({name: table.header for name, table in tables.items()})}
    means: dict[Key, Key] = {}
    for name, table in tables.items():
        reduced = table.reduced("mean")
        found = _defined(reduced, max_utility_drop, seed, texts[name]) if table.reduction == "sum" else None
        if found is not None:
            means[name] = mean = _free(f"{name}, token mean", analyses)
            analyses[mean], names[mean] = found, f"{names[name]}, token mean"
    return write_report(
        folder,
        analyses,
        title=title or f"Steering report: {folder.name}",
        context=_context(tables, max_utility_drop, seed, next(iter(analyses.values())).n_boot),
        transfers=_transfers(files, tables),
        scores=_scores(files, tables),
        manifolds=_manifolds(files, tables, analyses),
        more=_promoted(files, tables),
        means=means,
        names=names,
        texts={name: kept for name, kept in texts.items() if kept},
    )


def _free(name: str, taken: Container[Key]) -> str:
    """The name, with a number where another sweep has it."""
    names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(free for free in names if free not in taken)


def _name(folder: Path, file: Path) -> str:
    """The method of a sweep: its folder, and the file where that is a further sweep; bytes that are no text are
    written out."""
    method = str(file.parent.relative_to(folder)) if file.parent != folder else folder.name
    whole = method if file.name == TEST else f"{method}, {file.stem}"
    return whole.encode("utf-8", "backslashreplace").decode()


def _defined(table: SweepTable, max_utility_drop: Budget, seed: int, texts: SweptTexts | None) -> Analysis | None:
    try:
        return analyse(table, max_utility_drop, seed=seed, texts=texts)
    except FitError:
        return None


def _transfers(files: Mapping[str, Path], tables: Mapping[str, SweepTable]) -> dict[Any, Transfer]:
    found: dict[Any, Transfer] = {}
    for name, path in _beside(files, TRAIN).items():
        train = SweepTable.load(path)
        _check_source(path, _source(train), files[name], tables[name])
        for label, reduction in ((name, "sum"), (f"{name}, token mean", "mean")):
            try:
                found[label] = transfer(train.reduced(reduction), tables[name].reduced(reduction))
            except FitError:
                continue
    return found


def _manifolds(
    files: Mapping[str, Path], tables: Mapping[str, SweepTable], analyses: Mapping[Key, Analysis]
) -> dict[Any, MeasuredDecay]:
    found: dict[Any, MeasuredDecay] = {}
    for name, path in _beside(files, ACTIVATIONS).items():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                factors, activations = data["factors"], data["activations"]
                change = str(data["change"]) if "change" in data else ""
            clean = activations[int(np.argmin(np.abs(factors)))]
        except (ValueError, KeyError, IndexError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{path} is broken ({error}): {STALE}") from None
        _check_source(path, {"id": change}, files[name], tables[name])
        found[name] = measured_decay(fit_manifold(clean), factors, list(activations), analyses[name].utility_fit)
    return found


def _scores(files: Mapping[str, Path], tables: Mapping[str, SweepTable]) -> dict[Key, Mapping[str, float]]:
    found: dict[Key, Mapping[str, float]] = {}
    for name, path in _beside(files, SCORES).items():
        kept = _json(path)
        _check_source(path, {"id": kept.get("change")}, files[name], tables[name])
        try:
            at = {"m": float(kept["m"])} if "m" in kept else {}
            found[name] = at | {str(k): float(v) for k, v in kept.get("scores", kept).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} is broken ({error}): {STALE}") from None
    return found


def _promoted(files: Mapping[str, Path], tables: Mapping[str, SweepTable]) -> list[Table]:
    rows: list[tuple[str, ...]] = []
    for name, path in _beside(files, PROMOTED).items():
        kept = _json(path)
        _check_source(path, {"id": kept.pop("change", None)}, files[name], tables[name])
        try:
            rows += [(name, side, *(repr(text) for text, _ in kept[side])) for side in kept]
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is broken ({error}): {STALE}") from None
    if not rows:
        return []
    heads = ("Method", "under", *map(str, range(1, max(map(len, rows)) - 1)))
    return [Table("promoted", "Tokens that db promotes through the unembedding, best first", heads, tuple(rows))]


def _beside(files: Mapping[str, Path], what: str) -> dict[str, Path]:
    """Name of a method -> the file of that name beside its (first) sweep, where there is one."""
    return {n: f.with_name(what) for n, f in files.items() if f.name == TEST and f.with_name(what).exists()}


def _check_source(path: Path, source: Mapping[str, Any], sweep: Path, table: SweepTable) -> None:
    """What does not name its change, as in earlier versions, is taken for the sweep's."""
    if not same_change({**_source(table), **{k: v for k, v in source.items() if v}}, _source(table)):
        raise ArtifactError(f"{path} is of another change than {sweep.name} beside it: {STALE}")


def _json(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is broken ({error}): {STALE}") from None
    if not isinstance(kept, dict):
        raise ArtifactError(f"{path} is broken (it holds a {type(kept).__name__}): {STALE}")
    return kept


def _context(tables: Mapping[str, SweepTable], max_utility_drop: Budget, seed: int, n_boot: int) -> dict[str, str]:
    """What was run, for the head of the report; what is not the same for all methods is said for each."""
    headers = {name: table.header for name, table in tables.items()}
    origins = {name: _mapping(_source(table).get("origin")) for name, table in tables.items()}
    return {
        "model": _shared({name: _model(header) for name, header in headers.items()}),
        "device": _shared({n: f"{h.get('device', 'unknown')}, {h.get('dtype', 'unknown dtype')}"
                           for n, h in headers.items()}),
        "site": _shared({name: str(_source(table).get("site", "unknown")) for name, table in tables.items()}),
        "test pairs": _shared({name: _pairs(table) for name, table in tables.items()}),
        "budget": _shared({name: budget_said(table, max_utility_drop) for name, table in tables.items()})
        + ", of utility, from m = 0 or from its highest on the way",
        "bootstrap": f"{n_boot:,} draws over examples, seed {seed}",
        "versions": _shared({n: ", ".join(f"{k} {v}" for k, v in _mapping(h.get("versions")).items())
                             for n, h in headers.items()}),
        "report made at commit": _commit(),
    } | {f"training of {name}": _training(origin) for name, origin in origins.items()}  # fmt: skip


def _mapping(value: Any) -> Mapping[str, Any]:
    """What a header says under a key; nothing where that is no mapping."""
    return value if isinstance(value, Mapping) else {}


def _shared(values: Mapping[str, str]) -> str:
    """The value, or every value with the methods that have it."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return "; ".join(f"{v} ({', '.join(n for n in values if values[n] == v)})" for v in dict.fromkeys(values.values()))


def _model(header: Mapping[str, Any]) -> str:
    about = _mapping(header.get("model"))
    weights = f", weights {about['weights'][:8]}" if isinstance(about.get("weights"), str) else ""
    return f"{Path(str(about.get('name', 'unknown'))).name} ({about.get('architecture', 'unknown')}{weights})"


def _pairs(table: SweepTable) -> str:
    known = table.header.get("pairs_sha256")
    return f"{table.loss_pos.shape[1]}" + (f" (hash {str(known)[:8]})" if known else "")


def _training(origin: Mapping[str, Any]) -> str:
    objective, config = dict(_mapping(origin.get("objective"))), _mapping(origin.get("config"))
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
