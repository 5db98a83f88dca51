"""From a sweep to everything this package says about it, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from . import bootstrap, fitted_curves, recommend
from .budget import Budget, in_unit_of
from .budget import check_budget as check_budget
from .fit import fit_preference, fit_utility
from .gaps import least_known
from .logodds import Curve, Sweep, beside, curves
from .measured import Measured, measured
from .pareto import BUDGETS, preference_at_budget
from .predicted import at_zero
from .recommend import Recommendation, advise, next_strength
from .region import Regions, measured_regions
from .result import FitResult
from .text_band import text_band
from .texts import SweptTexts

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What one sweep says; log-odds in nats.

    Attributes:
        preference, utility: the measured curves, with the counts of undefined points.
        preference_interval, utility_interval: (M, 2) 95% bootstrap intervals over examples.
        preference_fit, utility_fit: the fitted laws; None where the curve could not be fitted (see
            ``notes``).
        regions: of the preference curve, as far as its points bear them out; None where they bear out none.
        recommendation: for ``max_utility_drop``, a swept strength and what was measured there; None unless both fits
            exist.
        budgets: utility losses in nats. front: the recommendation at each (empty without both fits).
        measured: both curves at the swept strengths, the ground of every recommendation.
        measured_gain: (K,) highest measured gain in preference within each budget, no law; NaN where unknown.
        texts: the answers along the sweep, judged where they were measured; None where none are kept.
        reduction, n_examples, header: of the sweep. n_boot, seed: of the bootstrap.
        notes: sentences the user should read: undefined points, fits that failed or are poor.
    """

    preference: Curve
    utility: Curve
    preference_interval: Array = field(repr=False)
    utility_interval: Array = field(repr=False)
    preference_fit: FitResult | None
    utility_fit: FitResult | None
    regions: Regions | None
    recommendation: Recommendation | None
    budgets: tuple[float, ...]
    front: tuple[Recommendation, ...] = field(repr=False)
    measured: Measured = field(repr=False)
    measured_gain: Array = field(repr=False)
    reduction: str
    n_examples: int
    header: Mapping[str, Any] = field(repr=False)
    n_boot: int
    seed: int
    notes: tuple[str, ...]
    texts: SweptTexts | None = field(default=None, repr=False)

    def measured_at(self, m: float) -> tuple[float, float]:
        """Measured gain in preference and loss of utility at m, nats, without any law.

        Both against m = 0; the loss against the highest utility on the way, where that is more (``Measured``). Straight
        lines join neighbouring strengths; undefined points are passed over. NaN outside the sweep.
        """
        at = self.measured
        gain, loss = (np.interp(m, at.m, values, left=np.nan, right=np.nan) for values in (at.gain, at.spent))
        return float(gain), float(loss)

    @property
    def advice(self) -> str:
        """Which strength to use, in a sentence or more; why none can be said, where that is so."""
        best = self.recommendation
        if best is None or best.m is None or best.gain_interval is None:
            return " ".join(self.notes)
        verdict = "Use" if best.reliable else "Not reliable:"
        if not best.measured:
            return f"{verdict} {best.strength}. {best.message}"
        (low, high), budget = best.gain_interval, best.max_utility_drop
        return (
            f"{verdict} {best.strength}: preference {best.preference_gain:+.3g} [{low:.3g}, {high:.3g}] and a loss of "
            f"utility of {beside(best.utility_drop, budget)} ± {best.drop_error:.2f} nats (budget {budget:g}), "
            f"measured there on {self._pairs_at(best.m)}. {best.message}"
        )

    def _pairs_at(self, m: float) -> str:
        """How many pairs have both curves at a swept strength."""
        one = [curve.values[curve.m == m] for curve in (self.preference, self.utility)]
        n = int(np.isfinite(one[0] + one[1]).sum())
        return f"{n} pair" if n == 1 else f"{n} pairs"

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes that the advice does not say already."""
        return tuple(note for note in self.notes if note not in self.advice)

    @property
    def undefined(self) -> str:
        """Undefined points in words, as ``0 of 8200`` for preference and utility."""
        return (
            f"preference {self.preference.n_undefined} of {self.preference.n_points}, "
            f"utility {self.utility.n_undefined} of {self.utility.n_points}"
        )


def strength_to_measure(table: Sweep, max_utility_drop: Budget = 1.0) -> float | None:
    """The strength that a sweep should measure next, so that its advice stands on it; None where it does already.

    Raises:
        FitError, DataError: as ``analyse``.
    """
    budget = in_unit_of(table, max_utility_drop)
    if not np.isin(0.0, table.factors):
        return 0.0
    return next_strength(_points(table), budget)


def strength_past_the_end(table: Sweep, max_utility_drop: Budget = 1.0) -> float | None:
    """The strength past the sweep that shows whether it ended too soon; None where the best one lies inside.

    Raises:
        FitError, DataError: as ``analyse``.
    """
    return recommend.strength_past_the_end(_points(table), in_unit_of(table, max_utility_drop))


def least_known_strength(table: Sweep, max_utility_drop: Budget = 1.0) -> float | None:
    """The strength that would tell most about both curves, where they matter for the budget (see ``gaps``); or None.

    Raises:
        FitError, DataError: as ``analyse``.
    """
    return least_known(_points(table), in_unit_of(table, max_utility_drop))


def best_swept(table: Sweep, max_utility_drop: float = 1.0) -> float:
    """The swept strength of highest measured preference within the budget, 0 among those that may be chosen.

    Raises:
        FitError, DataError: as ``analyse``; or 0 was not swept, or utility is undefined there.
    """
    check_budget(max_utility_drop)
    found = _points(table)
    at = found.best(max_utility_drop) if found.swept[found.zero] else None
    if at is None:
        raise FitError("What a strength costs is not known without utility at m = 0: sweep 0 as well.")
    return float(found.m[at])


def _points(table: Sweep) -> Measured:
    """The measured curves alone, without draws; at a 0 that was not swept both are taken to be 0."""
    preference, utility = curves(table)
    none = np.empty((0, len(preference.m)))
    return measured(preference, utility, (0.0, 0.0), (none, none))


def analyse(
    table: Sweep, max_utility_drop: Budget = 1.0, n_boot: int = 1000, seed: int = 0, texts: SweptTexts | None = None
) -> Analysis:
    """Curves with intervals, fits, regions and the recommended strength of a sweep.

    The fits are unweighted, as in App. D. A curve that cannot be fitted leaves its fit None and a note that
    says why.

    Args:
        table: anything with the attributes of a sweep table (``logodds.Sweep``).
        max_utility_drop: budget of the recommendation in nats of the sweep's unit, or `PerToken`, at least 0.
        n_boot: bootstrap draws over examples. seed: of the draws.
        texts: answers along the sweep; a strength at which their measures fail is not relied on.
    Raises:
        FitError: every loss is undefined, no utility point is defined, or the budget or n_boot cannot be
            used.
        DataError: losses or strengths cannot be used.
    """
    own_budget = in_unit_of(table, max_utility_drop)
    preference, utility = curves(table)
    counts = bootstrap.draw_counts(preference.values.shape[1], n_boot, seed)
    draws = bootstrap.curve_draws(preference, counts), bootstrap.curve_draws(utility, counts)
    notes = _undefined_notes(preference, utility, table.reduction)
    pref_fit, util_fit = _try_fit(preference, notes), _try_fit(utility, notes)
    zero = _unmeasured_zero(pref_fit), _unmeasured_zero(util_fit)
    points = measured(preference, utility, zero, draws, seed)
    steps: tuple[Recommendation, ...] = ()
    if pref_fit is not None and util_fit is not None:
        both, pair = (pref_fit, util_fit), (preference, utility)
        steps = tuple(advise(points, both, pair, budget, table.header, texts) for budget in (own_budget, *BUDGETS))
        notes.append(steps[0].message)
    elif (band := text_band(texts, 0.0)) is not None:
        notes.append(str(band))
    return Analysis(
        preference=preference,
        utility=utility,
        preference_interval=bootstrap.interval(draws[0]),
        utility_interval=bootstrap.interval(draws[1]),
        preference_fit=pref_fit,
        utility_fit=util_fit,
        regions=measured_regions(preference),
        recommendation=steps[0] if steps else None,
        budgets=BUDGETS,
        front=steps[1:],
        measured=points,
        measured_gain=_measured(preference, utility, notes),
        reduction=table.reduction,
        n_examples=preference.values.shape[1],
        header=dict(table.header),
        n_boot=n_boot,
        seed=seed,
        notes=tuple(notes),
        texts=texts,
    )


def _unmeasured_zero(fit: FitResult | None) -> float:
    return 0.0 if fit is None else at_zero(fit)


def _try_fit(curve: Curve, notes: list[str]) -> FitResult | None:
    kind: fitted_curves.Kind = "preference" if curve.kind == "preference" else "utility"
    try:
        fit = (fit_preference if kind == "preference" else fit_utility)(curve.m, curve.mean)
    except FitError as error:
        notes.append(str(error))
        return None
    notes.append(f"{kind.capitalize()} fit: {fit.message}")
    return fit


def _undefined_notes(preference: Curve, utility: Curve, reduction: str) -> list[str]:
    notes = []
    for curve in (preference, utility):
        if curve.n_undefined:
            share = curve.n_undefined / curve.n_points
            remedy = "; reduction='sum' has none" if curve.kind == "utility" and reduction == "mean" else ""
            notes.append(
                f"{curve.n_undefined} of {curve.n_points} {curve.kind} points ({share:.1%}) are undefined "
                f"and left out of the curve{remedy}."
            )
    return notes


def _measured(preference: Curve, utility: Curve, notes: list[str]) -> Array:
    try:
        return preference_at_budget(preference.m, preference.mean, utility.mean, BUDGETS)
    except FitError as error:
        notes.append(str(error))
        return np.full(len(BUDGETS), np.nan)
