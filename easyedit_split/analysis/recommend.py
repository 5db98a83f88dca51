"""The strength to use: the swept one of highest preference at a loss of utility within a budget, as measured at it.

What two fits alone predict, without their sweep, is ``predicted.recommend_strength``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .bootstrap import interval
from .logodds import Curve, beside, nats
from .measured import Measured
from .reliability import MARGIN, Advised, Doubt, doubts, doubts_of_examples
from .result import FitResult
from .text_band import TextBand, doubts_of_texts, text_band
from .texts import SweptTexts

Array = NDArray[np.float64]
Limit = Literal["peak", "budget", "sweep", "none", "never"]

BUDGET_AIM, BUDGET_USED = 0.98, 0.93  # shares of the budget: what the next strength aims at, and what is near enough
STEEP_AGAIN = 2.5  # times the budget: a fall to measure within
WORTH = 0.005  # share of the gain that another strength must add
NARROW = 0.004  # share of the sweep's reach below which a gap is not halved again
SAID = 0.01  # nats by which the loss is more when counted from elsewhere: less does not show in two digits
FURTHER = 1.5  # times the end of a sweep that ends too soon
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
        gain_interval, drop_interval: 95% intervals over examples of the gain and the loss at m; that of the gain holds
            although m was chosen for its gain (``Measured.gain_interval``). drop_error: standard error of the loss.
        doubts: the conditions of ``reliability`` and of ``text_band`` that fail.
        texts: the strengths at which texts hold; None where no text was measured, or none holds.
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
    texts: TextBand | None = None

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
        return f"m = {self.m:g}{within}"


def advise(
    measured: Measured, fits: tuple[FitResult, FitResult], curves: tuple[Curve, Curve], budget: float,
    header: Mapping[str, Any], texts: SweptTexts | None = None,
) -> Recommendation:  # fmt: skip
    """The swept strength of highest measured preference within the budget, and every condition that it fails.

    Args:
        measured: both curves. fits, curves: of preference and utility; the fits are asked for their quality alone.
        header: of the sweep. texts: answers along it.
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
    gained, lost = measured.gain_interval(budget, at), _interval(measured.spent_draws[:, at])
    advised = Advised(measured, at, budget, measured.best_interval(budget, at), lost, gained)
    failed = (*doubts(advised, fits, curves, header), *doubts_of_texts(texts, advised.m))
    beyond = measured.beyond(at, budget)
    limit: Limit = (
        "none" if measured.gain[at] <= 0 else "budget" if beyond is not None
        else "sweep" if advised.m in measured.ends else "peak"
    )  # fmt: skip
    band = text_band(texts, advised.m)
    parts = [*_stopped(measured, at, beyond, limit, budget, within), *_counted(measured, at)]
    parts += [] if band is None else [str(band)]
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
        texts=band,
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
        cost, m = beside(measured.spent[beyond], budget), measured.m[beyond]
        parts.append(
            f"The nearest strength of higher preference{where}, m = {m:g}, costs {cost} nats, more than the budget."
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
        return [f"The loss is counted from m = {measured.m[base]:g}, where utility {_lift(measured, base)} on the way."]
    best = int(np.argmax(np.where(measured.swept, measured.utility, -np.inf)))
    if best != measured.zero and np.percentile(measured.lift_draws[:, best], 2.5) > HIGHER:
        return [f"Elsewhere utility is higher: at m = {measured.m[best]:g} it {_lift(measured, best)}."]
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


def strength_past_the_end(measured: Measured, budget: float) -> float | None:
    """Half as far again as the sweep goes, where the best strength within the budget lies at its end; else None."""
    at = measured.best(budget)
    if at is None or not measured.swept[measured.zero] or measured.m[at] == 0:
        return None
    end = measured.ends[1] if measured.m[at] > 0 else measured.ends[0]
    return _rounded(FURTHER * end) if abs(end - measured.m[at]) <= MARGIN * abs(end) else None


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
