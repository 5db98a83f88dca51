"""When advice may be relied on: named conditions, each a function that says in a sentence what fails, or nothing.

The first group asks what was measured at and around the advised strength. The second asks the law: whether it explains
the curves at all and, where the next strength is a long way down in utility, whether its parameters mean anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .logodds import Curve
from .measured import Measured
from .result import FitResult

POOR_R2 = 0.9
SPARE_STRENGTHS = 4  # strengths beyond the parameters of the law
CONDITION = 1e10  # of the covariance of the fit
PAIRS = 20  # fewer give no interval to speak of
DIFFERENT = 0.9  # share of the pairs that are no repetition of another
SAME = 3  # digits after the point, nats, to which a repeated pair has the same log-odds
OVERSPENT = 0.5  # nats that other examples may lose beyond the budget; half the budget where that is less
CLOSE, STEEP = 1.0, 3.0  # times the budget that utility falls from the advised strength to the next
RISE = 0.1  # nats
MARGIN = 0.05  # share of the sweep's reach that lies beyond the advised strength
TRAINED = 2.0  # times the largest strength that was trained on


@dataclass(frozen=True)
class Doubt:
    """A condition that fails: its name, and a sentence that says so."""

    name: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Advised:
    """A swept strength, index ``at`` of the measured curves, with the interval of the best strength, for a budget."""

    measured: Measured
    at: int
    budget: float
    interval: tuple[float, float]
    spent: tuple[float, float]
    gain: tuple[float, float]

    @property
    def m(self) -> float:
        return float(self.measured.m[self.at])

    @property
    def neighbours(self) -> list[int]:
        """The measured strengths next to it that have a higher preference: between it and them a better one may lie."""
        higher = self.measured.higher(self.at)
        return [i for i in (self.at - 1, self.at + 1) if 0 <= i < len(higher) and higher[i]]

    @property
    def fall(self) -> tuple[float, float]:
        """Of ``neighbours`` the one that costs most more, and how much more; (m, 0) where none does."""
        falls = [(float(self.measured.spent[i] - self.measured.spent[self.at]), i) for i in self.neighbours]
        most, i = max(falls, default=(0.0, self.at))
        return float(self.measured.m[i]), max(most, 0.0)


def doubts_of_fits(fits: tuple[FitResult, FitResult]) -> Iterator[Doubt]:
    """What speaks against the law as a whole."""
    for fit in fits:
        if not fit.success:
            yield Doubt("converged", f"The {fit.kind} fit did not converge.")
        if not fit.r2 >= POOR_R2:
            yield Doubt("r2", f"The {fit.kind} fit is poor (R^2 = {fit.r2:.3f}).")
        spare = len(np.unique(fit.m)) - fit.n_free
        if spare < SPARE_STRENGTHS:
            yield Doubt(
                "strengths",
                f"{len(np.unique(fit.m))} strengths are few for the {fit.n_free} free parameters of the {fit.kind} "
                f"law: sweep {SPARE_STRENGTHS - spare} more.",
            )
    if fits[1].params["beta"] <= 0 and _rises(fits[1]):
        yield Doubt("identified", "The utility law has beta <= 0: utility rises where the law supposes that it decays.")


def doubts_of_parameters(fits: tuple[FitResult, FitResult], m: float, budget: float) -> Iterator[Doubt]:
    """What speaks against the parameters that matter at m: those that all strengths share, and those of its side."""
    if fits[1].params["beta"] <= 0:
        yield Doubt("identified", "The utility law fits with beta <= 0, so its parameters mean nothing: sweep more "
                                  "strengths.")  # fmt: skip
    for fit in fits:
        sides = [side for side in ("plus", "minus") if m == 0 or side == ("plus" if m > 0 else "minus")]
        mine = [n for n in fit.params if n.split("_")[-1] in sides or "_" not in n]
        # a centre at 0 ends at a bound of the law itself, not of the search
        bound = [n for n in fit.at_bound if n in mine and not (n.startswith("m_") and fit.params[n] == 0)]
        lost = [n for n in mine if n not in fit.at_bound and np.isfinite(fit.params[n])
                and not np.isfinite(fit.stderr[n])]  # fmt: skip
        if bound:
            yield Doubt("identified", f"{_listed(bound)} of the {fit.kind} law ended at the bound of the search.")
        if lost:
            yield Doubt("identified", f"The points do not determine {_listed(lost)} of the {fit.kind} law.")
        if not fit.condition <= CONDITION:
            yield Doubt("identified", f"The {fit.kind} fit has a condition number of {fit.condition:.1g}.")
    if fits[1].rmse > budget > 0:
        yield Doubt("rmse", f"The utility law misses the points by {fits[1].rmse:.2g} nats, more than the budget.")


def doubts_of_measurement(advised: Advised, curves: tuple[Curve, Curve]) -> Iterator[Doubt]:
    """What speaks against the strength by what was measured at it and next to it; of the gain and the loss nothing
    where m = 0, from which they are counted, was not measured."""
    found, at, m = advised.measured, advised.at, advised.m
    tolerance, zero = min(OVERSPENT, advised.budget / 2), bool(found.swept[found.zero])
    measured_on, different = curves[0].values.shape[1], _different(curves)
    if different < PAIRS:
        pair = "pair" if different == measured_on else "different pair"
        few = f"{different} {pair}{' is' if different == 1 else 's are'}"
        yield Doubt("pairs", f"{few} too few for an interval: measure {PAIRS} or more.")
    elif different < DIFFERENT * measured_on:
        yield Doubt("pairs", f"Of {measured_on} pairs only {different} are different, so the intervals are too narrow: "
                             "leave repetitions out.")  # fmt: skip
    elif zero and advised.spent[1] > advised.budget + tolerance:
        yield Doubt("budget", f"Other pairs may lose {advised.spent[1]:.2g} nats there: measure more pairs.")
    if zero and m != 0 and not advised.gain[0] > 0:
        yield Doubt("gain", f"The gain may be none: {advised.gain[0]:+.2g} to {advised.gain[1]:+.2g} nats.")
    if advised.interval[0] < 0 < advised.interval[1] and m != 0:
        yield Doubt("sign", "The interval of the best strength holds both signs.")
    low, high = float(found.m[found.swept][0]), float(found.m[found.swept][-1])
    end = high if m > 0 else low
    if m == 0 and 0.0 in (low, high):
        unknown = "negative" if low == 0 else "positive"
        yield Doubt("edge", f"No {unknown} strength was swept, so a better one may lie there: sweep some.")
    touched = [e for e in (low, high) if e in advised.interval and e != 0]
    if m != 0 and (touched or abs(end - m) <= MARGIN * abs(end)):
        outermost = (touched or [end])[0]
        cut = bool((found.lost * np.sign(outermost) > abs(outermost)).any())
        place = (
            f"m = {outermost:g}, past which a curve is undefined."
            if cut
            else f"the end of the sweep, m = {outermost:g}: sweep further."
        )
        yield Doubt("edge", f"The best strength may lie past {place}")
    beyond, fall = advised.fall
    if fall > STEEP * max(advised.budget, OVERSPENT) or (m == 0 and fall > 0 and advised.interval != (0.0, 0.0)):
        yield Doubt("gap", f"Utility falls by {fall:.2g} nats from m = {found.m[at]:.3g} to {beyond:.3g} and nothing "
                           "was measured in between: sweep there.")  # fmt: skip


def doubts_of_examples(curves: tuple[Curve, Curve], m: float) -> Iterator[Doubt]:
    """Whether the two ends of the loss and the gain are means over the same examples."""
    preference, utility = curves
    if not np.isin(0.0, utility.m):
        yield Doubt("zero", "The sweep has no point at m = 0, so the loss of utility is not known: sweep 0 as well.")
    elif not np.isfinite(utility.mean[utility.m == 0]).all() or not np.isfinite(preference.mean[utility.m == 0]).all():
        yield Doubt("zero", "Utility is undefined at m = 0, so its loss is not known: use reduction='sum'.")
        return
    lost = ~(np.isfinite(preference.mean) & np.isfinite(utility.mean))
    higher = preference.mean[preference.m == m]
    hidden = preference.m[lost & ~(preference.mean <= higher.max(initial=-np.inf))]
    if len(hidden):
        yield Doubt("undefined", f"At m = {hidden[0]:.3g} a curve is undefined, so what it costs there is not known.")
    for curve in curves:
        n = max(int(curve.undefined[np.argmin(np.abs(curve.m - at))]) for at in (0.0, m))
        if n:
            yield Doubt("undefined", f"{curve.kind.capitalize()} is undefined for {n} of {curve.values.shape[1]} pairs "
                                     "at m = 0 or there, so other pairs are compared.")  # fmt: skip


def doubts_of_training(header: Mapping[str, Any], m: float) -> Iterator[Doubt]:
    """Whether the sweep is of the pairs trained on, or m far outside the strengths trained with, as its header says."""
    origin = _inside(header, "artifact", "origin")
    own = header.get("pairs_sha256")
    if own and own == _inside(origin, "pairs_sha256"):
        yield Doubt("own pairs", "The change was trained on these very pairs, and others may gain less and lose more: "
                                 "sweep test pairs.")  # fmt: skip
    largest = largest_trained(origin)
    if largest and abs(m) > TRAINED * largest:
        yield Doubt("trained", f"m = {m:.3g} is {abs(m) / largest:.2g} times the largest strength trained on, "
                               f"{largest:g}.")  # fmt: skip


def largest_trained(origin: Any) -> float | None:
    """The largest strength that a change was trained with, in its own unit: of one that was scaled since, in the new
    one. None where its origin does not say."""
    try:
        largest = max(abs(float(factor)) for factor in _inside(origin, "config", "steering_factors") or ())
        return largest / abs(float(origin.get("scaled", 1.0))) or None
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _inside(found: Any, *keys: str) -> Any:
    """What lies under the keys, one inside the other; None where there is nothing."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def doubts(advised: Advised, fits: tuple[FitResult, FitResult], curves: tuple[Curve, Curve],
           header: Mapping[str, Any]) -> tuple[Doubt, ...]:  # fmt: skip
    """Every condition that fails at an advised strength."""
    close = advised.fall[1] <= CLOSE * max(advised.budget, OVERSPENT)
    return (
        *doubts_of_measurement(advised, curves),
        *doubts_of_examples(curves, advised.m),
        *doubts_of_training(header, advised.m),
        *doubts_of_fits(fits),
        # where the next strength is near in utility, nothing hangs on the law between the two
        *(() if close else doubts_of_parameters(fits, advised.m, advised.budget)),
    )


def _rises(fit: FitResult) -> bool:
    """Whether a point lies clearly above that of the least strength: by more than the fit misses the points."""
    values = fit.predict(fit.m) + fit.residual
    return bool(values.max() > values[np.argmin(np.abs(fit.m))] + max(fit.rmse, RISE))


def _different(curves: tuple[Curve, Curve]) -> int:
    """How many pairs are different: no two have the same log-odds at every strength."""
    rows = np.vstack([np.nan_to_num(curve.values) for curve in curves]).round(SAME)
    return len(np.unique(rows, axis=1).T)


def _listed(names: list[str]) -> str:
    return ", ".join(names)
