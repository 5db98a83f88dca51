"""A fitted curve, and the R^2 the fits are judged by.

R^2 is the paper's: 1 - SS_res / SS_tot about the mean of the points it is asked on, unweighted, so on other
points than the fitted ones it may be negative. R^2 alone hides that beta and b trade off against one another:
read the standard errors and the condition number as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import decay, fitted_curves

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted curve. Values are in nats, strengths in the units of m.

    Attributes:
        kind: ``"preference"`` (Eq. 15) or ``"utility"`` (Eq. 17).
        params: name -> value: alpha (preference only), beta, b, then m_plus, L_plus, p_plus, m_minus,
            L_minus, p_minus. Those of a branch that was not measured are NaN.
        stderr: name -> standard error of the parameter, from the spread of the points about the curve. NaN
            for a parameter that sits at its bound or was not fitted, infinite where the points do not
            determine it. Points of one sweep share their examples, so this is the error of the curve's shape,
            not of a new sample of examples: the bootstrap of ``analyse`` covers that.
        covariance: (P, P) covariance behind ``stderr``, in the order of ``params``.
        condition: condition number of the covariance with every free direction scaled to one; 1 is ideal,
            above about 1e8 single parameters mean little although the curve may be good.
        r2, adjusted_r2, rmse: on the fitted points, unweighted; rmse in nats. Adjusted R^2 is NaN without
            degrees of freedom.
        continuity_residual: D(0+) - D(0-); 0 for one branch.
        sides: ``"both"``, ``"plus"`` (all m >= 0) or ``"minus"`` (all m <= 0).
        m: (M,) strengths of the fitted points, ascending. residual: (M,) points minus curve, nats.
        root_weight: (M,) square roots of the points' weights.
        n_dropped: points left out because they were NaN or infinite.
        n_free: parameters the points had to determine.
        n_starts: starts tried. at_bound: parameters that ended at a bound of the search.
        success: whether the search converged. message: one sentence for the user.
    """

    kind: fitted_curves.Kind
    params: dict[str, float]
    stderr: dict[str, float]
    covariance: Array = field(repr=False)
    condition: float
    r2: float
    adjusted_r2: float
    rmse: float
    continuity_residual: float
    sides: str
    m: Array = field(repr=False)
    residual: Array = field(repr=False)
    root_weight: Array = field(repr=False)
    n_dropped: int
    n_free: int
    n_starts: int
    at_bound: tuple[str, ...]
    success: bool
    message: str

    @property
    def vector(self) -> Array:
        """The parameters as an array, in the order of ``params``."""
        return np.array(list(self.params.values()))

    @property
    def n_points(self) -> int:
        """Points the curve was fitted to."""
        return len(self.m)

    @property
    def m_range(self) -> tuple[float, float]:
        """Lowest and highest fitted m."""
        return float(self.m[0]), float(self.m[-1])

    def _on_branch(self, m: ArrayLike) -> Array:
        return decay.on_branch(m, self.sides)

    def predict(self, m: ArrayLike) -> Array:
        """The fitted curve at m, in nats, same shape as m. NaN on a side that was not measured."""
        return fitted_curves.curve(self.kind, self._on_branch(m), self.vector)

    def through_points(self, m: ArrayLike) -> Array:
        """The fitted curve plus the points' residuals joined by straight lines, so that it passes through the points.

        What is read off it at a measured strength is what was measured there (the mean, where one was given twice).
        Between two of them the law gives the shape, near the range of the two: a law that spikes or dives where nothing
        was measured is not believed. Beyond the outermost points their residuals hold.
        """
        at, where = np.unique(self.m, return_inverse=True)
        residual = np.bincount(where, self.residual) / np.bincount(where)
        strengths = np.asarray(m, dtype=float)
        bent = self.predict(strengths) + np.interp(strengths, at, residual)
        return within_neighbours(bent, strengths, at, self.predict(at) + residual)

    def slope(self, m: ArrayLike) -> Array:
        """Derivative of the fitted curve in m, nats per unit of m; at 0 that of the positive branch."""
        return fitted_curves.curve_slope(self.kind, self._on_branch(m), self.vector)

    def decay(self, m: ArrayLike) -> Array:
        """The fitted D(m) of Eq. 12 alone."""
        return decay.decay(self._on_branch(m), self.vector[-6:])

    def gradient(self, m: ArrayLike) -> Array:
        """Derivatives of the fitted curve in its parameters, (M, P); zero in a branch that was not fitted."""
        gradient = fitted_curves.curve_gradient(self.kind, self._on_branch(m), self.vector)
        return np.where(np.isfinite(self.vector), gradient, 0.0)

    def r2_on(self, m: ArrayLike, y: ArrayLike) -> float:
        """R^2 of this curve on other points; may be negative. NaN where y is flat, or at points it cannot
        predict.

        Points whose y is NaN or infinite are left out.
        """
        y = np.asarray(y, dtype=float)
        keep = np.isfinite(y)
        return r_squared(y[keep], self.predict(np.asarray(m, dtype=float)[keep]))


def within_neighbours(values: Array, m: Array, at: Array, measured: Array) -> Array:
    """`values` (..., K) at strengths `m` (K,), none far outside `measured` (..., U) at the two strengths of `at` (U,),
    ascending, that it lies between.

    Beyond the two by at most half the largest step of `measured` there or to the next strengths: enough for a smooth
    peak between two strengths. Values beyond `at` stay.
    """
    step = np.abs(np.diff(measured, axis=-1))
    near = np.pad(step, [(0, 0)] * (step.ndim - 1) + [(1, 1)])
    largest = np.max([near[..., :-2], step, near[..., 2:]], axis=0)
    right = np.searchsorted(at, m).clip(1, len(at) - 1)
    ends = np.stack([measured[..., right - 1], measured[..., right]])
    slack = largest[..., right - 1] / 2
    bounded = np.clip(values, ends.min(axis=0) - slack, ends.max(axis=0) + slack)
    return np.where((at[0] <= m) & (m <= at[-1]), bounded, values)


def r_squared(y: Array, predicted: Array) -> float:
    """1 - SS_res / SS_tot about the mean of y; NaN when y is flat or empty."""
    total = float(((y - y.mean()) ** 2).sum()) if y.size else 0.0
    return float(1.0 - ((y - predicted) ** 2).sum() / total) if total > 0 else float("nan")
