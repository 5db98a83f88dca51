"""From result files to values: a mean over concepts for each seed, then mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.pareto import BUDGETS, interval
from ..evaluation.rubrics import AXBENCH_RUBRICS
from .settings import metrics

Result = Mapping[str, Any]
Key = tuple[str, str, str]  # data set, method, form
FIT_COLUMNS = ("preference", "utility")
TRAINING_FIT_COLUMNS = ("preference, train", "utility, train")
TRANSFER_COLUMNS = ("preference, test", "utility, test")
OFFLINE = ("perplexity", "distinct_1", "distinct_2", "repetition", "length", "empty")
METHOD_ORDER = ("vanilla", "diffmean", "sft", "reps", "split")
FORM_ORDER = ("", "vector", "lora", "local_weight")


@dataclass(frozen=True)
class Value:
    """A mean over `seeds` seeds; `spread` is their standard deviation (None for one), `low` and `high` an interval."""

    mean: float
    spread: float | None
    seeds: int
    low: float | None = None
    high: float | None = None


def grouped(results: Iterable[Result]) -> dict[Key, list[Result]]:
    """Results by data set, method and form, in the order of the tables."""
    found: dict[Key, list[Result]] = {}
    for result in results:
        cell = result["cell"]
        found.setdefault((cell["dataset"], cell["method"], cell["form"]), []).append(result)
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(key: Key) -> tuple[str, int, str, int, str]:
    dataset, method, form = key
    place = METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)
    shape = FORM_ORDER.index(form) if form in FORM_ORDER else len(FORM_ORDER)
    return dataset, shape if method not in METHOD_ORDER[:2] else 0, form, place, method


def over_seeds(results: Sequence[Result], read: Callable[[Result], float | None]) -> Value | None:
    """The value of a group; None where no result has it."""
    by_seed: dict[int, list[float]] = {}
    for result in results:
        value = read(result)
        if value is not None and np.isfinite(value):
            by_seed.setdefault(result["cell"]["seed"], []).append(float(value))
    if not by_seed:
        return None
    means = np.array([np.mean(values) for values in by_seed.values()])
    return Value(float(means.mean()), float(means.std(ddof=1)) if len(means) > 1 else None, len(means))


def score_columns(dataset: str) -> tuple[str, ...]:
    """The columns of the score table for a data set."""
    if metrics(dataset) == ("accuracy",):
        return "accuracy", "likelihood accuracy"
    return (*metrics(dataset), "harmonic mean") if metrics(dataset) == AXBENCH_RUBRICS else metrics(dataset)


def score(result: Result, column: str) -> float | None:
    """A score of one result, of the judge or without."""
    judged = (result.get("judge") or {}).get("scores", {})
    return judged.get(column, result["scores"].get(column))


def draws_over_seeds(results: Sequence[Result], budget: float) -> NDArray[np.float64] | None:
    """Bootstrap draws `(B,)` of the mean over seeds and concepts of the preference gained at a budget.

    Draw b takes the same examples in every seed and method of a data set, so methods can be compared draw by draw.
    """
    column = BUDGETS.index(budget)
    parts = [np.array(r["front"]["draws"], float)[:, column] for r in results if "front" in r]
    return np.mean(parts, axis=0) if parts else None


def gain(results: Sequence[Result], budget: float) -> Value | None:
    """Preference gained at a budget, nats: mean and spread over seeds, 95% interval over examples."""
    column = BUDGETS.index(budget)
    value = over_seeds(results, lambda r: r["front"]["gain"][column] if "front" in r else None)
    draws = draws_over_seeds(results, budget)
    if value is None or draws is None:
        return value
    low, high = interval(draws)
    return Value(value.mean, value.spread, value.seeds, low, high)
