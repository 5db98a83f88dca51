"""A small search for a method's settings, by held-out training pairs alone: never by test pairs.

The first setting tried is the file's own; the others are drawn from the same lists for every method, so that methods
tuned with the same number of tries had the same chance. Each try is kept on disk as it ends, and is not run again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.pareto import front_at_budgets, interval
from ..data.pairs import PreferencePair, pairs_hash
from ..errors import ConfigError, DataError, SteeringError
from ..models.identity import model_fingerprint
from ..settings.hyperparameters import Hyperparameters
from ..storage.files import write_text
from ..training.from_settings import layers_of_one, train_layer
from .factors import sweep_factors
from .run import sweep

HELD_OUT = 0.25
MIN_PAIRS = 8
N_BOOT = 200
LR_TIMES = (0.25, 0.5, 1.0, 2.0, 4.0)
EPOCHS_TIMES = (0.5, 1.0, 2.0)
THETAS = (0.3, 0.6, 1.0, 2.0)
GAMMAS = (1.0, 3.5, 8.0)
TUNED = ("lr", "n_epochs", "margin_threshold", "margin_penalty_weight")


@dataclass(frozen=True)
class Try:
    """One setting: its numbers, and the preference gained within the budget on held-out pairs, or why it failed."""

    values: dict[str, float]
    gain: float | None
    low: float | None = None
    high: float | None = None
    failure: str = ""


def candidates(hp: Hyperparameters, tries: int, seed: int = 0) -> list[dict[str, float]]:
    """The settings to try, the file's own first. Fewer where there are no more."""
    if tries < 1:
        raise ConfigError(f"tries = {tries} is out of range: give 1 or more")
    own = {name: getattr(hp, name) for name in _tuned(hp)}
    lists: dict[str, list[float]] = {
        "lr": [float(f"{hp.lr * times:.3g}") for times in LR_TIMES],
        "n_epochs": sorted({max(1, round(hp.n_epochs * times)) for times in EPOCHS_TIMES}),
        "margin_threshold": list(THETAS),
        "margin_penalty_weight": list(GAMMAS),
    }
    grid = [dict(zip(own, values, strict=True)) for values in itertools.product(*(lists[name] for name in own))]
    random.Random(seed).shuffle(grid)
    return [own, *[values for values in grid if values != own]][:tries]


def _tuned(hp: Hyperparameters) -> tuple[str, ...]:
    if hp.objective_name == "diff_mean":
        raise ConfigError("unified_diffmean is not trained: there is nothing to tune")
    return TUNED if hp.objective_name == "split" else TUNED[:2]


def tune(
    hp: Hyperparameters, model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], folder: str | Path, *,
    tries: int = 12, budget: float = 1.0, points: int = 15, say: Callable[[str], object] = lambda text: None,
) -> list[Try]:  # fmt: skip
    """Train each setting on three quarters of `pairs` and sweep it over the rest; the tries, in their order.

    Args:
        folder: each try is written to `tries/` there as it ends; tries of the same inputs are read, not run.
        budget: nats of utility that a strength may spend. points: strengths of each sweep.

    Raises:
        ConfigError: no change or several named (see `layers_of_one`), nothing to tune, or every setting failed (the
            first reason is given).
        DataError: fewer than 8 pairs.
    """
    layers_of_one(hp)
    if len(pairs) < MIN_PAIRS:
        raise DataError(f"{len(pairs)} pairs are too few to tune on: give {MIN_PAIRS} or more")
    found = []
    values = candidates(hp, tries)
    cut = len(pairs) - max(2, int(len(pairs) * HELD_OUT))
    inputs = [pairs_hash(pairs), model_fingerprint(model), budget, points, hp.layers[0]]
    for number, chosen in enumerate(values, 1):
        one = replace(hp, **chosen)  # type: ignore[arg-type]
        path = Path(folder) / "tries" / f"{_identity(one, inputs)}.json"
        result = _kept(path)
        if result is None:
            result = _measured(one, chosen, model, tokenizer, pairs[:cut], pairs[cut:], budget, points)
            write_text(path, json.dumps(asdict(result)) + "\n")
        shown = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
        said = result.failure or f"gain {result.gain:.2f} [{result.low:.2f}, {result.high:.2f}]"
        say(f"[{number}/{len(values)}] {shown}: {said}")
        found.append(result)
    if all(t.gain is None for t in found):
        raise ConfigError(f"all {len(found)} settings failed, the first with: {found[0].failure}")
    return found


def best_try(tries: Sequence[Try]) -> Try:
    """The try of highest gain on held-out pairs; of equals the first."""
    return max((t for t in tries if t.gain is not None), key=lambda t: t.gain or 0.0)


def tuned_file(hp: Hyperparameters, best: Try, note: str) -> str:
    """A hyper-parameter file with the settings of `best`: YAML, comments say where it is from."""
    import yaml

    tuned = replace(hp, **best.values)  # type: ignore[arg-type]
    plain = Hyperparameters()
    kept = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(tuned).items()
        if name in ("alg_name", "layers", "intervention_method", "lr", "n_epochs", *TUNED)
        or (name not in _PLACES and value != getattr(plain, name))
    }
    if hp.objective_name != "split":
        kept = {name: value for name, value in kept.items() if name not in TUNED[2:]}
    return f"# {note}\n" + yaml.safe_dump(kept, sort_keys=False)


_PLACES = ("source", "output_dir", "model_name_or_path", "train_data", "test_data", "device", "device_map")


def _identity(hp: Hyperparameters, inputs: Sequence[object]) -> str:
    values = {k: v for k, v in asdict(hp).items() if k not in _PLACES}
    return hashlib.sha256(json.dumps([values, *inputs], sort_keys=True).encode()).hexdigest()[:24]


def _kept(path: Path) -> Try | None:
    try:
        return Try(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _measured(
    hp: Hyperparameters, values: dict[str, float], model: Any, tokenizer: Any, train: Sequence[PreferencePair],
    held: Sequence[PreferencePair], budget: float, points: int,
) -> Try:  # fmt: skip
    try:
        artifact = train_layer(hp, model, tokenizer, train, layers_of_one(hp), progress=True)
        factors = sweep_factors(model, tokenizer, held, artifact, points)
        front = front_at_budgets(sweep(model, tokenizer, held, artifact, factors, "sum"), N_BOOT, [budget])
    except SteeringError as error:
        return Try(values, None, failure=str(error))
    low, high = interval(np.array(front["draws"])[:, 0])
    return Try(values, front["gain"][0], low, high)


def rows(tries: Sequence[Try]) -> Iterator[list[object]]:
    """Rows for a table, best first, failures last."""
    for t in sorted(tries, key=lambda t: -(t.gain if t.gain is not None else -np.inf)):
        yield [
            *t.values.values(),
            *(["failed", t.failure] if t.gain is None else [t.gain, f"[{t.low:.2f}, {t.high:.2f}]"]),
        ]
