"""The strength to use: the highest predicted preference at a predicted loss of utility within a budget.

Predictions are the fitted law bent through the measured points (``FitResult.through_points``): at a swept strength
they are what was measured there, so a fit that misses by a nat does not spend the budget unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from .bootstrap import interval, point_draws
from .logodds import Curve, nats
from .result import FitResult

Array = NDArray[np.float64]
Limit = Literal["peak", "budget", "sweep", "none", "never"]

GRID = 4001
BOOT_GRID = 801
POOR_R2 = 0.9


@dataclass(frozen=True)
class Recommendation:
    """A recommended strength and what the law, bent through the measured points, predicts there, in nats.

    Attributes:
        m: the strength; None when no swept strength is within the budget.
        preference, utility: predicted log-odds at m. preference_gain, utility_drop: against m = 0; the drop
            is utility(0) - utility(m), negative where utility rises.
        max_utility_drop: the budget.
        limit: what stopped it: ``"peak"`` (preference is highest there), ``"budget"``, ``"sweep"`` (the end
            of the measured strengths), ``"none"`` (no strength raises preference above m = 0), ``"never"`` (m
            is None).
        within_budget: ``"some"``, ``"all"`` or ``"none"`` of the swept strengths.
        reliable: both fits converged with R^2 of at least 0.9, and utility was measured at m = 0, from where
            the loss is counted.
        message: one or more sentences for the user.
        interval: 95% bootstrap interval of m; None when it was not asked for.
    """

    m: float | None
    preference: float
    preference_gain: float
    utility: float
    utility_drop: float
    max_utility_drop: float
    limit: Limit
    within_budget: Literal["some", "all", "none"]
    reliable: bool
    message: str
    interval: tuple[float, float] | None = None

    @property
    def strength(self) -> str:
        """m and its interval, for people; "no m" where no swept strength is within the budget."""
        if self.m is None:
            return "no m"
        within = "" if self.interval is None else f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"
        return f"m = {self.m:.3g}{within}"


def recommend_strength(pref_fit: FitResult, util_fit: FitResult, max_utility_drop: float) -> Recommendation:
    """The m of highest predicted preference with utility(0) - utility(m) <= max_utility_drop.

    Only strengths inside the sweep of both fits are considered: the law is not used outside what was
    measured. The search is a grid of 4,001 strengths over the sweep, plus m = 0 when it is inside.

    Args:
        pref_fit, util_fit: fits of the two curves of one sweep.
        max_utility_drop: budget in nats of utility log-odds, at least 0.
    Returns:
        Recommendation, without an interval (``recommendation_interval`` gives one).
    Raises:
        FitError: the budget is negative or not finite, the fits are of the wrong kind or share no strength.
    """
    check_fits(pref_fit, util_fit, max_utility_drop)
    m = swept_grid(pref_fit, util_fit, GRID)
    preference, utility = pref_fit.through_points(m), util_fit.through_points(m)
    base_preference, base_utility = at_zero(pref_fit), at_zero(util_fit)
    allowed = base_utility - utility <= max_utility_drop
    within: Literal["some", "all", "none"] = "all" if allowed.all() else "some" if allowed.any() else "none"
    converged = all(fit.success and fit.r2 >= POOR_R2 for fit in (pref_fit, util_fit))
    reliable = converged and bool(np.isin(0.0, util_fit.m))
    nan = float("nan")
    if within == "none":
        message = _message("never", nan, within, max_utility_drop, pref_fit, util_fit)
        return Recommendation(None, nan, nan, nan, nan, max_utility_drop, "never", within, reliable, message)
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
        reliable=reliable,
        message=_message(limit, float(m[best]), within, max_utility_drop, pref_fit, util_fit),
    )


def recommendation_interval(
    recommendation: Recommendation, pref_fit: FitResult, util_fit: FitResult,
    preference: Curve, utility: Curve, pref_draws: Array, util_draws: Array,
) -> Recommendation:  # fmt: skip
    """The same recommendation with a 95% interval of m from drawn curves (B, M) of the same examples.

    Each draw's fits are one Gauss-Newton step from the given ones (see ``bootstrap``), on a grid of 801
    strengths. Draws in which no strength is within the budget are left out. The interval never leaves the
    sweep.
    """
    if recommendation.m is None:
        return recommendation
    m = np.union1d(swept_grid(pref_fit, util_fit, BOOT_GRID), [recommendation.m])
    drawn_preference = point_draws(pref_fit, preference, pref_draws, m)
    drawn_utility = point_draws(util_fit, utility, util_draws, m)
    base = point_draws(util_fit, utility, util_draws, np.zeros(1))
    allowed = base - drawn_utility <= recommendation.max_utility_drop
    some = allowed.any(axis=1)
    if not some.any():
        return recommendation
    best = m[np.where(allowed, drawn_preference, -np.inf).argmax(axis=1)[some]]
    low, high = interval(best[:, None])[0]
    return replace(recommendation, interval=(float(low), float(high)))


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


def _message(limit: Limit, m: float, within: str, budget: float, pref_fit: FitResult, util_fit: FitResult) -> str:
    low, high = pref_fit.m_range
    swept = f"the sweep from {low:g} to {high:g}"
    parts = [
        {
            "peak": f"Preference is highest at m = {m:.4g}, within the budget of {nats(budget)}.",
            "budget": f"Past m = {m:.4g} utility falls by more than {nats(budget)}.",
            "sweep": f"Preference still rises at the end of {swept}; sweep further for a better strength.",
            "none": f"No strength in {swept} raises preference within the budget; use another change.",
            "never": f"No strength in {swept} keeps within {nats(budget)} of utility; sweep nearer to 0.",
        }[limit]
    ]
    if within == "all":
        parts.append(f"All of {swept} stays within the budget.")
    peak = _utility_peak(pref_fit, util_fit)
    if peak is not None:
        parts.append(peak)
    if not np.isin(0.0, util_fit.m):
        lacks = "Utility is undefined" if np.isin(0.0, pref_fit.m) else "The sweep has no point"
        parts.append(f"{lacks} at m = 0, so the loss is counted from the predicted value there: do not rely on it.")
    for fit in (pref_fit, util_fit):
        if not fit.success:
            parts.append(f"The {fit.kind} fit did not converge: do not rely on this strength.")
        elif fit.r2 < POOR_R2:
            parts.append(f"The {fit.kind} fit is poor (R^2 = {fit.r2:.3f}): generate at this strength to check it.")
    return " ".join(parts)


def _utility_peak(pref_fit: FitResult, util_fit: FitResult) -> str | None:
    """A sentence when utility is clearly higher away from m = 0: the loss is then counted from below its best."""
    m = swept_grid(pref_fit, util_fit, BOOT_GRID)
    above = util_fit.through_points(m) - at_zero(util_fit)
    best = int(np.argmax(above))
    if above[best] <= max(util_fit.rmse, 0.1):
        return None
    return f"Utility is highest at m = {m[best]:.3g}, {above[best]:.3g} nats above m = 0."
