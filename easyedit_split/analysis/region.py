"""The linear, transitional and convergence regions of a preference curve (section 3.3), read off its fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from easyedit_split.analysis.result import FitResult
from easyedit_split.errors import FitError

LINEAR_TOLERANCE = 0.1
CONVERGENCE_SLOPE = 0.1
_GRID = 2001


@dataclass(frozen=True)
class SideRegions:
    """Regions on one side of m = 0, as strengths with the sign of that side.

    From 0 to ``linear_end`` the curve is linear, from there to ``convergence_start`` transitional, beyond it
    converged. None means the sweep ends before that boundary. ``edge`` is the end of the sweep.
    """

    linear_end: float | None
    convergence_start: float | None
    edge: float


@dataclass(frozen=True)
class Regions:
    """Regions of a preference curve; a side that was not measured is None."""

    plus: SideRegions | None
    minus: SideRegions | None

    def spans(self) -> list[tuple[str, float, float]]:
        """(name, low, high) of every region, by rising m; the linear ones are joined at 0."""
        linear = [0.0, 0.0]
        outer: list[tuple[str, float, float]] = []
        for i, side in ((1, self.plus), (0, self.minus)):
            if side is None:
                continue
            first = side.edge if side.linear_end is None else side.linear_end
            second = side.edge if side.convergence_start is None else side.convergence_start
            linear[i] = first
            for name, a, b in (("transitional", first, second), ("convergence", second, side.edge)):
                if a != b:
                    outer.append((name, min(a, b), max(a, b)))
        return sorted([("linear", linear[0], linear[1]), *outer], key=lambda span: span[1])


def regions(
    pref_fit: FitResult,
    linear_tolerance: float = LINEAR_TOLERANCE,
    convergence_slope: float = CONVERGENCE_SLOPE,
) -> Regions:
    """Split the swept range of a preference fit into linear, transitional and convergence regions, each side
    apart.

    Args:
        pref_fit: a preference fit.
        linear_tolerance: the linear region of a side ends at the first m where the curve leaves the straight
            line through its value and slope at 0 by more than this share of the line's own rise,
            |f(m) - f(0) - f'(0) m| > linear_tolerance |f'(0) m|. 0.1 by default.
        convergence_slope: the convergence region of a side begins at the first m from which on the slope
            stays at or below this share of the steepest slope of that side, |f'| <= convergence_slope max
            |f'|. 0.1 by default. The curve must have turned away from its line by then, so it never begins
            inside the linear region.
    Returns:
        Regions in units of m; boundaries on a grid of 2,001 strengths a side.
    Raises:
        FitError: the fit is not of a preference curve, or a number is not in (0, 1).
    """
    if pref_fit.kind != "preference":
        raise FitError(f"The fit is of kind {pref_fit.kind!r}; the regions are those of a preference fit.")
    for name, value in (("linear_tolerance", linear_tolerance), ("convergence_slope", convergence_slope)):
        if not 0 < value < 1:
            raise FitError(f"{name} is {value}; give a number between 0 and 1.")
    low, high = pref_fit.m_range
    plus = _side(pref_fit, high, linear_tolerance, convergence_slope) if high > 0 else None
    minus = _side(pref_fit, low, linear_tolerance, convergence_slope) if low < 0 else None
    return Regions(plus, minus)


def _side(fit: FitResult, edge: float, tolerance: float, flat: float) -> SideRegions:
    m = np.linspace(0.0, edge, _GRID)
    m[0] = np.copysign(1e-300, edge)  # the value and the slope at 0 are those of this side
    value, slope = fit.predict(m), fit.slope(m)
    rise = slope[0] * m
    bent = np.abs(value - value[0] - rise) > tolerance * np.abs(rise)
    bent[0] = False
    linear_end = int(np.argmax(bent)) if bent.any() else None
    steep = np.abs(slope) > flat * np.abs(slope).max()
    after = int(np.flatnonzero(steep)[-1]) + 1
    if linear_end is not None:
        after = max(after, linear_end)
    return SideRegions(
        linear_end=None if linear_end is None else float(m[linear_end]),
        convergence_start=None if after >= _GRID or linear_end is None else float(m[after]),
        edge=edge,
    )
