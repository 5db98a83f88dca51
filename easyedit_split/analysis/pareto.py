"""The preference-utility front: what a strength gains in preference for what it costs in utility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError
from . import bootstrap
from .bootstrap import curve_draws, draw_counts
from .logodds import Sweep, curves
from .measured import Measured
from .predicted import at_zero, check_fits, swept_grid
from .result import FitResult

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Front:
    """Strengths that no other swept strength beats in both curves, by rising loss of utility; nats.

    Attributes: m, preference_gain and utility_drop, each (K,), the last two against m = 0.
    """

    m: Array
    preference_gain: Array
    utility_drop: Array


def front(pref_fit: FitResult, util_fit: FitResult) -> Front:
    """The preference-utility front over the sweep (401 strengths, and m = 0), from the law bent through the points.

    A strength is on the front when no other has at least its preference for a smaller loss of utility.
    """
    check_fits(pref_fit, util_fit, 0.0)
    m = swept_grid(pref_fit, util_fit, 401)
    gain = pref_fit.through_points(m) - at_zero(pref_fit)
    return _unbeaten(m, gain, at_zero(util_fit) - util_fit.through_points(m))


def measured_front(measured: Measured) -> Front:
    """The same of the measured curves, joined between the swept strengths; no law."""
    return _unbeaten(measured.dense, measured.gain_dense, measured.spent_dense)


def _unbeaten(m: Array, gain: Array, drop: Array) -> Front:
    order = np.lexsort((-gain, drop))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(gain[order])[:-1]])
    kept = order[gain[order] > best_before]
    return Front(m[kept], gain[kept], drop[kept])


def preference_at_budget(m: ArrayLike, preference: ArrayLike, utility: ArrayLike, budgets: Sequence[float]) -> Array:
    """Highest measured gain in preference within each budget of utility: no law, only the measured curves.

    The curves are joined by straight lines between neighbouring strengths (401 points a gap are looked at),
    so the answer does not jump from one swept strength to the next. This compares methods without trusting a
    fit.

    Args:
        m, preference, utility: (M,) strengths and mean log-odds in nats; points with a NaN are left out.
        budgets: (K,) largest allowed utility(0) - utility(m), nats.
    Returns:
        (K,) gains in nats against m = 0; NaN where nothing measured is within the budget.
    Raises:
        FitError: fewer than two points are defined, or the strengths do not reach m = 0.
    """
    at, pref, util = (np.asarray(array, dtype=float) for array in (m, preference, utility))
    keep = np.isfinite(at) & np.isfinite(pref) & np.isfinite(util)
    order = np.argsort(at[keep], kind="stable")
    at, pref, util = at[keep][order], pref[keep][order], util[keep][order]
    if len(at) < 2:
        raise FitError(f"Only {len(at)} strengths have both curves defined; at least 2 are needed.")
    if not at[0] <= 0 <= at[-1]:
        raise FitError(f"Both curves are defined from {at[0]:g} to {at[-1]:g}; gains and losses need m = 0 among that.")
    number = np.linspace(0, len(at) - 1, 400 * (len(at) - 1) + 1)
    dense = np.union1d(np.interp(number, np.arange(len(at)), at), [0.0])
    gain = np.interp(dense, at, pref) - np.interp(0.0, at, pref)
    drop = np.interp(0.0, at, util) - np.interp(dense, at, util)
    best = np.array([np.where(drop <= budget, gain, -np.inf).max() for budget in budgets])
    return np.where(np.isfinite(best), best, np.nan)


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
