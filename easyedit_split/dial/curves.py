"""What a sweep says, as plain lists for the page: measured points, the law through them, the strength to use."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.budget import Budget, in_unit_of
from ..analysis.logodds import Sweep
from ..analysis.pipeline import Analysis, analyse
from ..analysis.predicted import at_zero, swept_grid
from ..analysis.texts import SweptTexts
from ..errors import FitError

DRAWN = 401  # strengths at which the law is drawn


def curves_of(table: Sweep, max_utility_drop: Budget = 1.0, texts: SweptTexts | None = None) -> dict[str, Any]:
    """Curves, law, recommendation and advice of a sweep; nats, NaN as None.

    `budget`: the stretch of strengths around 0 over which utility falls by at most `max_utility_drop`; None without
    a law. A table that cannot be analysed is an error.

    Raises:
        FitError, DataError: see `analyse`.
    """
    found, budget = analyse(table, max_utility_drop, texts=texts), in_unit_of(table, max_utility_drop)
    law = _law(found)
    best = found.recommendation
    return {
        "m": found.preference.m.tolist(),
        "preference": _plain(found.preference.mean),
        "utility": _plain(found.utility.mean),
        "preference_interval": _plain(found.preference_interval),
        "utility_interval": _plain(found.utility_interval),
        "law": law,
        "budget": {"nats": budget, "stretch": _stretch(law, budget)},
        "recommended": None
        if best is None or best.m is None
        else {"m": best.m, "interval": best.interval, "reliable": best.reliable, "limit": best.limit},
        "advice": found.advice,
        "reduction": found.reduction,
        "pairs": found.n_examples,
        "undefined": found.undefined,
    }


def curves_of_pair(table: Sweep) -> dict[str, Any]:
    """Both log-odds of a sweep of one pair."""
    from ..analysis.logodds import curves

    preference, utility = curves(table)
    return {"m": preference.m.tolist(), "preference": _plain(preference.mean), "utility": _plain(utility.mean)}


def _law(found: Analysis) -> dict[str, Any] | None:
    """Both fitted laws bent through the measured points: what the recommendation is read off."""
    if found.preference_fit is None or found.utility_fit is None:
        return None
    try:
        m = swept_grid(found.preference_fit, found.utility_fit, DRAWN)
    except FitError:
        return None
    m = np.union1d(m, [found.recommendation.m] if found.recommendation and found.recommendation.m is not None else [])
    return {
        "m": m.tolist(),
        "preference": _plain(found.preference_fit.through_points(m)),
        "utility": _plain(found.utility_fit.through_points(m)),
        "utility_at_zero": at_zero(found.utility_fit),
    }


def _stretch(law: dict[str, Any] | None, budget: float) -> tuple[float, float] | None:
    if law is None or not law["m"][0] <= 0 <= law["m"][-1]:
        return None
    m, utility = np.array(law["m"]), np.array(law["utility"], dtype=float)
    spent = law["utility_at_zero"] - utility > budget
    low, high = m[spent & (m < 0)].max(initial=m[0]), m[spent & (m > 0)].min(initial=m[-1])
    return float(low), float(high)


def _plain(values: Any) -> Any:
    """Nested lists in which what is not finite is None."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    return float(values) if np.isfinite(values) else None
