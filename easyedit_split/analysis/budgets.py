"""The front of a change on test pairs: preference gained within budgets of utility, with its bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import bootstrap
from .bootstrap import curve_draws, draw_counts
from .logodds import Sweep, curves
from .pareto import preference_at_budget

BUDGETS = (0.5, 1.0, 2.0, 4.0)


def front_at_budgets(table: Sweep, n_boot: int, budgets: Sequence[float] = BUDGETS, seed: int = 0) -> dict[str, Any]:
    """Highest measured gain in preference at each of `budgets` nats: `gain` (K,), and `draws` (n_boot, K).

    Draws take the same examples in every cell with as many test pairs, so that methods can be compared draw by draw
    and averages over seeds have honest intervals.
    """
    preference, utility = curves(table)
    counts = draw_counts(preference.values.shape[1], n_boot, seed)
    pairs = zip(curve_draws(preference, counts), curve_draws(utility, counts), strict=True)
    draws = np.array([preference_at_budget(preference.m, p, u, budgets) for p, u in pairs])
    gain = preference_at_budget(preference.m, preference.mean, utility.mean, budgets)
    return {"budgets": list(budgets), "gain": gain.tolist(), "draws": np.round(draws, 4).tolist()}


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """95% percentile interval of draws `(B,)`; NaN where all are."""
    low, high = bootstrap.interval(draws[:, None])[0]
    return float(low), float(high)
