"""The strength that two fitted laws give without their sweep: bent through the measured points, searched on a grid."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from .logodds import nats
from .recommend import Limit, Recommendation
from .reliability import Doubt, doubts_of_fits
from .result import FitResult

Array = NDArray[np.float64]

GRID = 4001


def recommend_strength(pref_fit: FitResult, util_fit: FitResult, max_utility_drop: float) -> Recommendation:
    """The m of highest predicted preference with utility(0) - utility(m) <= max_utility_drop, by two fits alone.

    Only strengths inside the sweep of both fits are considered: the law is not used outside what was
    measured. The search is a grid of 4,001 strengths over the sweep, plus m = 0 when it is inside. ``analyse`` advises
    strengths that were measured; this is for fits without their sweep.

    Args:
        pref_fit, util_fit: fits of the two curves of one sweep.
        max_utility_drop: budget in nats of utility log-odds, at least 0.
    Returns:
        Recommendation of predicted values, without intervals. Its doubts are those of the fits.
    Raises:
        FitError: the budget is negative or not finite, the fits are of the wrong kind or share no strength.
    """
    check_fits(pref_fit, util_fit, max_utility_drop)
    m = swept_grid(pref_fit, util_fit, GRID)
    preference, utility = pref_fit.through_points(m), util_fit.through_points(m)
    base_preference, base_utility = at_zero(pref_fit), at_zero(util_fit)
    allowed = base_utility - utility <= max_utility_drop
    within: Literal["some", "all", "none"] = "all" if allowed.all() else "some" if allowed.any() else "none"
    failed = list(doubts_of_fits((pref_fit, util_fit)))
    if not np.isin(0.0, util_fit.m):
        lacks = "Utility is undefined" if np.isin(0.0, pref_fit.m) else "The sweep has no point"
        failed.append(Doubt("zero", f"{lacks} at m = 0, so the loss is counted from the predicted value there."))
    nan = float("nan")
    if within == "none":
        message = _message("never", nan, within, max_utility_drop, pref_fit, failed)
        return Recommendation(
            None, nan, nan, nan, nan, max_utility_drop, "never", within, message, doubts=tuple(failed)
        )
    best = _best(m, preference, allowed)
    limit = _limit(best, m, preference, allowed, base_preference)
    if limit == "none" and m[0] <= 0 <= m[-1]:
        best = int(np.flatnonzero(m == 0)[0])
    return Recommendation(
        m=float(m[best]),
        preference=float(preference[best]),
        preference_gain=float(preference[best] - base_preference),
        utility=float(utility[best]),
        utility_drop=float(base_utility - utility[best]),
        max_utility_drop=float(max_utility_drop),
        limit=limit,
        within_budget=within,
        message=_message(limit, float(m[best]), within, max_utility_drop, pref_fit, failed),
        doubts=tuple(failed),
    )


def check_fits(pref_fit: FitResult, util_fit: FitResult, budget: float) -> None:
    """Raise FitError unless the fits are a preference and a utility fit, and the budget is a finite number >= 0."""
    if (pref_fit.kind, util_fit.kind) != ("preference", "utility"):
        raise FitError(f"The fits are of kind {pref_fit.kind!r} and {util_fit.kind!r}; give preference, then utility.")
    if not (np.isfinite(budget) and budget >= 0):
        raise FitError(f"max_utility_drop is {budget}; give a finite number of nats, at least 0.")


def swept_grid(pref_fit: FitResult, util_fit: FitResult, n: int) -> Array:
    """n evenly spaced strengths (and 0) over the range that both fits were measured on; FitError without one."""
    low = max(pref_fit.m_range[0], util_fit.m_range[0])
    high = min(pref_fit.m_range[1], util_fit.m_range[1])
    if low >= high:
        raise FitError("The preference and the utility fit share no range of strengths; fit both on one sweep.")
    grid = np.linspace(low, high, n)
    return np.union1d(grid, [0.0]) if low <= 0 <= high else grid


def at_zero(fit: FitResult) -> float:
    """The predicted value at m = 0, in nats: the measured one where 0 was swept."""
    return float(fit.through_points(np.zeros(1))[0])


def _best(m: Array, preference: Array, allowed: NDArray[np.bool_]) -> int:
    """Index of the highest allowed preference; of equals the one nearest to 0."""
    value = np.where(allowed, preference, -np.inf)
    top = np.flatnonzero(value == value.max())
    return int(top[np.argmin(np.abs(m[top]))])


def _limit(best: int, m: Array, preference: Array, allowed: NDArray[np.bool_], base: float) -> Limit:
    if preference[best] <= base + 1e-12 * max(1.0, abs(base)):
        return "none"
    neighbours = [i for i in (best - 1, best + 1) if 0 <= i < len(m)]
    if any(not allowed[i] and preference[i] > preference[best] for i in neighbours):
        return "budget"
    return "sweep" if best in (0, len(m) - 1) else "peak"


def _message(limit: Limit, m: float, within: str, budget: float, pref_fit: FitResult, failed: list[Doubt]) -> str:
    low, high = pref_fit.m_range
    swept = f"the sweep from {low:g} to {high:g}"
    parts = [
        {
            "peak": f"By the law preference is highest at m = {m:.4g}, within the budget of {nats(budget)}.",
            "budget": f"By the law utility falls by more than {nats(budget)} past m = {m:.4g}.",
            "sweep": f"By the law preference still rises at the end of {swept}; sweep further for a better strength.",
            "none": f"By the law no strength in {swept} raises preference within the budget.",
            "never": f"By the law no strength in {swept} keeps within {nats(budget)} of utility; sweep nearer to 0.",
        }[limit]
    ]
    if within == "all":
        parts.append(f"All of {swept} stays within the budget.")
    return " ".join([*parts, *(doubt.sentence for doubt in failed)])
