"""The strength to use: the highest preference at a loss of utility within a budget.

``advise`` takes it from what was measured: a swept strength, with the gain and the loss measured at it.
``recommend_strength`` takes it from two fits alone: what the law, bent through the measured points
(``FitResult.through_points``), predicts between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from .bootstrap import interval
from .logodds import Curve, nats
from .measured import Measured
from .reliability import Advised, Doubt, doubts, doubts_of_examples, doubts_of_fits
from .result import FitResult

Array = NDArray[np.float64]
Limit = Literal["peak", "budget", "sweep", "none", "never"]

GRID = 4001
BUDGET_AIM, BUDGET_USED = 0.98, 0.93  # shares of the budget: what the next strength aims at, and what is near enough
STEEP_AGAIN = 2.5  # times the budget: a fall to measure within
WORTH = 0.005  # share of the gain that another strength must add
NARROW = 0.004  # share of the sweep's reach below which a gap is not halved again
SAID = 0.01  # nats by which the loss is more when counted from elsewhere: less does not show in two digits
HIGHER = 0.1  # nats that utility must be above m = 0, in the lower end of its interval, to be called higher


@dataclass(frozen=True)
class Recommendation:
    """A recommended strength, in nats.

    Attributes:
        m: the strength; None when no strength is within the budget.
        preference, utility: log-odds at m, measured or, of ``recommend_strength``, predicted. preference_gain: against
            m = 0. utility_drop: against m = 0, or against the highest utility measured between 0 and m where that is
            more; at least 0.
        max_utility_drop: the budget.
        limit: what stopped it: ``"peak"`` (preference is highest there), ``"budget"``, ``"sweep"`` (the end
            of the measured strengths), ``"none"`` (no strength raises preference above m = 0), ``"never"`` (m
            is None).
        within_budget: ``"some"``, ``"all"`` or ``"none"`` of the swept strengths.
        message: one or more sentences for the user.
        interval: 95% interval of the best strength, over examples and over what may lie between the swept ones;
            None without draws.
        gain_interval, drop_interval: 95% intervals over examples of the gain and the loss at m. drop_error: standard
            error of the loss.
        doubts: the conditions of ``reliability`` that fail.
    """

    m: float | None
    preference: float
    preference_gain: float
    utility: float
    utility_drop: float
    max_utility_drop: float
    limit: Limit
    within_budget: Literal["some", "all", "none"]
    message: str
    interval: tuple[float, float] | None = None
    gain_interval: tuple[float, float] | None = None
    drop_interval: tuple[float, float] | None = None
    drop_error: float = float("nan")
    doubts: tuple[Doubt, ...] = ()

    @property
    def reliable(self) -> bool:
        """No condition fails, and there is a strength."""
        return not self.doubts and self.m is not None

    @property
    def measured(self) -> bool:
        """The gain and the loss are measured ones: utility was measured at m = 0."""
        return self.gain_interval is not None and all(doubt.name != "zero" for doubt in self.doubts)

    @property
    def strength(self) -> str:
        """m and its interval, for people; "no m" where no swept strength is within the budget."""
        if self.m is None:
            return "no m"
        within = "" if self.interval is None else f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"
        return f"m = {self.m:.3g}{within}"


def advise(
    measured: Measured, fits: tuple[FitResult, FitResult], curves: tuple[Curve, Curve], budget: float,
    header: Mapping[str, Any],
) -> Recommendation:  # fmt: skip
    """The swept strength of highest measured preference within the budget, and every condition that it fails.

    Args:
        measured: both curves. fits, curves: of preference and utility; the fits are asked for their quality alone.
        header: of the sweep.
    """
    allowed = measured.spent[measured.swept] <= budget
    everywhere = allowed.all() and not len(measured.lost)
    within: Literal["some", "all", "none"] = "all" if everywhere else "some" if allowed.any() else "none"
    at, nan = measured.best(budget), float("nan")
    if at is None:
        failed = tuple(doubts_of_examples(curves, 0.0))
        message = " ".join(
            [
                f"Of the predicted utility at m = 0 no swept strength keeps within {nats(budget)}.",
                *(d.sentence for d in failed),
            ]
        )
        return Recommendation(None, nan, nan, nan, nan, budget, "never", within, message, doubts=failed)
    if measured.gain[at] <= 0 and measured.swept[measured.zero]:
        at = measured.zero
    gained, lost = (_interval(draws[:, at]) for draws in (measured.gain_draws, measured.spent_draws))
    advised = Advised(measured, at, budget, measured.best_interval(budget, at), lost, gained)
    failed = doubts(advised, fits, curves, header)
    beyond = measured.beyond(at, budget)
    limit: Limit = (
        "none" if measured.gain[at] <= 0 else "budget" if beyond is not None
        else "sweep" if advised.m in measured.ends else "peak"
    )  # fmt: skip
    parts = [*_stopped(measured, at, beyond, limit, budget, within), *_counted(measured, at)]
    return Recommendation(
        m=advised.m,
        preference=float(measured.preference[at]),
        preference_gain=float(measured.gain[at]),
        utility=float(measured.utility[at]),
        utility_drop=float(measured.spent[at]),
        max_utility_drop=float(budget),
        limit=limit,
        within_budget=within,
        message=" ".join([*parts, *(doubt.sentence for doubt in failed)]),
        interval=advised.interval,
        gain_interval=gained,
        drop_interval=lost,
        drop_error=float(measured.spent_draws[:, at].std()),
        doubts=failed,
    )


def _interval(draws: Array) -> tuple[float, float]:
    low, high = interval(draws[:, None])[0]
    return float(low), float(high)


def _stopped(measured: Measured, at: int, beyond: int | None, limit: Limit, budget: float, within: str) -> list[str]:
    """What was measured that speaks against every other strength."""
    if not measured.swept[measured.zero]:
        return []
    low, high = measured.ends
    parts, where = [], measured.where
    if limit == "none":
        parts.append(f"No swept strength{where} raises preference within the budget.")
    elif limit == "sweep":
        end = f"strengths from {low:g} to {high:g}{where}" if where else f"sweep from {low:g} to {high:g}"
        parts.append(f"Preference is highest at the end of the {end}.")
    elif limit == "peak":
        parts.append(f"No other swept strength{where} has a higher preference.")
    if beyond is not None:
        cost = float(f"{measured.spent[beyond]:.4g}")
        dearer = f"{nats(cost)}, more" if cost > budget else f"{nats(measured.spent[beyond] - budget)} more"
        parts.append(
            f"The nearest strength of higher preference{where}, m = {measured.m[beyond]:.3g}, costs {dearer} than the "
            "budget."
        )
    if within == "all":
        parts.append(f"Every swept strength stays within {nats(budget)}.")
    return parts


def _counted(measured: Measured, at: int) -> list[str]:
    """From where the loss is counted, if not from 0; and where utility is clearly higher than at m = 0."""
    if not measured.swept[measured.zero]:
        return []
    base = measured.counted_from(at)
    if measured.utility[base] - measured.utility[measured.zero] > SAID:
        return [
            f"The loss is counted from m = {measured.m[base]:.3g}, where utility {_lift(measured, base)} on the way."
        ]
    best = int(np.argmax(np.where(measured.swept, measured.utility, -np.inf)))
    if best != measured.zero and np.percentile(measured.lift_draws[:, best], 2.5) > HIGHER:
        return [f"Elsewhere utility is higher: at m = {measured.m[best]:.3g} it {_lift(measured, best)}."]
    return []


def _lift(measured: Measured, at: int) -> str:
    low, high = _interval(measured.lift_draws[:, at])
    lift = measured.utility[at] - measured.utility[measured.zero]
    return f"measures {lift:+.2g} [{low:.2g}, {high:.2g}] nats against m = 0"


def next_strength(measured: Measured, budget: float) -> float | None:
    """The strength to measure next, so that the advice stands on it; None where nothing is to be gained.

    Where utility falls steeply beyond the advised strength, half-way to the next; else where the joined curves have
    the highest preference within the budget. Rounded to three digits, towards 0.
    """
    at = measured.best(budget)
    if at is None or not measured.swept[measured.zero]:
        return None
    aim = BUDGET_AIM * budget
    beyond = measured.beyond(at, budget)
    if beyond is not None and abs(beyond - at) == 1:
        here, there = float(measured.m[at]), float(measured.m[beyond])
        if measured.spent[beyond] - measured.spent[at] > STEEP_AGAIN * max(budget, 0.5):
            return _new(measured, _rounded((here + there) / 2), here, there)
    if measured.spent[at] >= BUDGET_USED * budget:
        return None
    value = np.where(measured.spent_dense <= aim, measured.gain_dense, -np.inf)
    top = int(np.argmax(value))
    if value[top] <= measured.gain[at] + WORTH * max(abs(measured.gain[at]), 0.1):
        return None
    return _new(measured, _rounded(float(measured.dense[top])), float(measured.m[at]), float(measured.dense[top]))


def _new(measured: Measured, m: float, here: float, there: float) -> float | None:
    reach = max(abs(end) for end in measured.ends)
    if np.isclose(measured.m, m, rtol=1e-9, atol=1e-12).any() or abs(there - here) < NARROW * reach:
        return None
    return m


def _rounded(m: float) -> float:
    """m to three digits, towards 0."""
    if m == 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(abs(m))) - 2)
    return float(f"{np.copysign(np.floor(abs(m) / unit + 1e-9) * unit, m):.3g}")


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
