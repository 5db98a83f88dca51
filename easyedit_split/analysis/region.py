"""The linear, transitional and convergence regions of a preference curve (section 3.3): of its fit, or as measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from .logodds import Curve
from .result import FitResult

LINEAR_TOLERANCE = 0.1
CONVERGENCE_SLOPE = 0.1
POINTS = 2  # swept strengths past 0 that a linear region needs
_GRID = 1001
Array = NDArray[np.float64]


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
    """Regions of a preference curve; a side that was not measured, or where nothing is borne out, is None."""

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
    """Split the swept range of a preference fit into linear, transitional and convergence regions, each
    side apart.

    Args:
        pref_fit: a preference fit.
        linear_tolerance: the linear region of a side ends at the largest e for which the curve stays near the
            chord from 0 to e: |f(m) - f(0) - (m / e) (f(e) - f(0))| <= linear_tolerance |f(e) - f(0)| for every m
            between. 0.1 by default. A chord, and not the tangent at 0, because the law may bend sharply within a
            hair of 0, where no strength was measured.
        convergence_slope: the convergence region of a side begins at the first m from which on the slope
            stays at or below this share of the steepest slope of that side, |f'| <= convergence_slope max
            |f'|. 0.1 by default. The curve must have turned away from its line by then, so it never begins
            inside the linear region.
    Returns:
        Regions in units of m; boundaries on a grid of 1,001 strengths a side.
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


def measured_regions(curve: Curve) -> Regions | None:
    """The regions that the points of a preference curve themselves bear out, by the same two numbers; None without any.

    Boundaries are swept strengths. A linear region needs at least two of them past 0 near one chord, a convergence
    region at least two steps of the flat slope; a side without a linear region is None.
    """
    known = np.isfinite(curve.mean)
    m, mean = curve.m[known], curve.mean[known]
    if 0.0 not in m:
        return None
    zero = int(np.searchsorted(m, 0.0))
    plus = _measured_side(m[zero:], mean[zero:] - mean[zero])
    minus = _measured_side(m[zero::-1], mean[zero::-1] - mean[zero])
    return None if plus is None and minus is None else Regions(plus, minus)


def _measured_side(m: Array, rise: Array) -> SideRegions | None:
    if len(m) <= POINTS:
        return None
    linear = _linear_end(m / m[-1], rise, LINEAR_TOLERANCE)
    if linear < POINTS or not np.abs(rise).max() > 0:
        return None
    slope = np.abs(np.diff(rise) / np.diff(m))
    steep = np.flatnonzero(slope > CONVERGENCE_SLOPE * slope.max())
    converged = max(int(steep[-1]) + 1, linear)
    return SideRegions(
        linear_end=float(m[linear]) if linear < len(m) - 1 else None,
        convergence_start=float(m[converged]) if converged < len(m) - 2 else None,
        edge=float(m[-1]),
    )


def _side(fit: FitResult, edge: float, tolerance: float, flat: float) -> SideRegions:
    m = np.linspace(0.0, edge, _GRID)
    m[0] = np.copysign(1e-300, edge)  # the value at 0 is the same on both sides, the slope is that of this side
    rise, slope = fit.predict(m) - fit.predict(m[:1]), np.abs(fit.slope(m))
    linear = _linear_end(m / edge, rise, tolerance)
    steep = np.flatnonzero(slope > flat * slope.max())
    converged = max(int(steep[-1]) + 1, linear)
    return SideRegions(
        linear_end=float(m[linear]) if linear < _GRID - 1 else None,
        convergence_start=float(m[converged]) if converged < _GRID - 1 else None,
        edge=edge,
    )


def _linear_end(share: Array, rise: Array, tolerance: float) -> int:
    """Index of the largest end whose chord from the first point the curve follows; 0 when there is none."""
    for end in range(len(rise) - 1, 0, -1):
        chord = rise[end] * share[: end + 1] / share[end]
        if (np.abs(rise[: end + 1] - chord) <= tolerance * abs(rise[end])).all():
            return end
    return 0
