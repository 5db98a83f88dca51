"""Bootstrap over examples: intervals of a curve, and a cheap bootstrap of what is read off a fit.

A sweep measures every strength on the same examples, so the points of a curve move together. Examples are
therefore drawn whole, with replacement, and the curve over m is taken again from each draw.

Fitting each of 1,000 drawn curves would take a minute. A drawn curve differs little from the measured one, so
its fit is replaced by one Gauss-Newton step from the fit at hand, taken on the curve and not on the
parameters: f*(m) = f(m) + g(m) Z (J Z)^+ (y* - y), with g and J the derivatives of the curve at m and at the
fitted points and Z the directions that the constraints leave free. The step is a projection, so it stays
small where single parameters are badly determined. Parameters at a bound of the search are held there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError
from .logodds import Curve
from .result import FitResult, within_neighbours
from .uncertainty import free_directions, log_scaling

Array = NDArray[np.float64]

LEVEL = 0.95
_RANK_TOLERANCE = 1e-6


def draw_counts(n_examples: int, n_boot: int, seed: int) -> Array:
    """How often each example is in each draw, (n_boot, n_examples); rows sum to n_examples."""
    if n_boot < 1:
        raise FitError(f"n_boot is {n_boot}; a bootstrap needs at least 1 draw, 1000 is usual.")
    drawn = np.random.default_rng(seed).integers(n_examples, size=(n_boot, n_examples))
    drawn += n_examples * np.arange(n_boot)[:, None]
    return np.bincount(drawn.ravel(), minlength=n_boot * n_examples).reshape(n_boot, n_examples).astype(float)


def curve_draws(curve: Curve, counts: Array) -> Array:
    """The mean curve of each draw, (B, M), over the examples defined at that m; NaN where a draw has none."""
    defined = np.isfinite(curve.values)
    total = counts @ np.where(defined, curve.values, 0.0).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / (counts @ defined.T.astype(float))


def interval(draws: Array, level: float = LEVEL) -> Array:
    """Percentile interval of draws (B, M) along the first axis, (M, 2); NaN where every draw is."""
    tail = 50.0 * (1.0 - level)
    result = np.full((draws.shape[1], 2), np.nan)
    some = np.isfinite(draws).any(axis=0)
    if some.any():
        result[some] = np.nanpercentile(draws[:, some], [tail, 100.0 - tail], axis=0).T
    return result


def smoother(fit: FitResult, m: ArrayLike) -> Array:
    """(K, M) matrix that takes a small change of the fitted points to the change of the fit at m (K,)."""
    held = np.isin(list(fit.params), fit.at_bound)
    fitted = np.isfinite(fit.vector)
    directions = free_directions(fit.kind, fit.vector, fitted, held) * log_scaling(fit.vector)[:, None]
    here = (fit.gradient(fit.m) @ directions) * fit.root_weight[:, None]
    lengths = np.linalg.norm(here, axis=0)
    lengths[lengths == 0] = 1.0
    step = np.linalg.pinv(here / lengths, rcond=_RANK_TOLERANCE) * fit.root_weight
    return (fit.gradient(m) @ (directions / lengths)) @ step


def fit_draws(fit: FitResult, curve: Curve, draws: Array, m: ArrayLike) -> Array:
    """The fitted curve at m (K,) for each drawn mean curve (B, M), by one Gauss-Newton step; (B, K)."""
    return fit.predict(m) + _changes(curve, draws) @ smoother(fit, m).T


def point_draws(fit: FitResult, curve: Curve, draws: Array, m: ArrayLike) -> Array:
    """``fit_draws``, bent through the points of each draw as ``FitResult.through_points`` bends the fit; (B, K)."""
    change = _changes(curve, draws)
    missed = fit.residual + change - change @ smoother(fit, fit.m).T
    at = np.unique(fit.m)
    measured = (fit.predict(fit.m) + fit.residual + change) @ fit.joining(at).T
    bent = fit_draws(fit, curve, draws, m) + missed @ fit.joining(m).T
    return within_neighbours(bent, np.asarray(m, float), at, measured)


def _changes(curve: Curve, draws: Array) -> Array:
    """Drawn minus measured curve at the points that were fitted, (B, M); 0 where a draw has no value."""
    used = np.isfinite(curve.mean)
    change = draws[:, used] - curve.mean[used]
    return np.where(np.isfinite(change), change, 0.0)
