"""The activation-manifold hypothesis (section 4.1), measured instead of assumed.

The paper supposes that activations of inputs the model handles well lie near a low-dimensional set M_l, that
steering moves them off it, and that this is why utility decays. Here M_l is a linear model, the mean and the
first principal components of clean activations, and everything else is measured from it:

* epsilon (Eq. 9): the radius with Pr[d(h, M_l) <= epsilon] >= 1 - delta over clean activations that were not
  used to find the components.
* V (Eq. 10): 1 within epsilon of M_l and (epsilon / d)^2 beyond. The paper leaves the form of V open; this
  one has no free parameter. Distances inside the plane count as well, as far as they exceed the clean ones: the
  distance is the larger of the two, each over its own radius.
* D(m) (Eq. 11): the mean of V over the inputs steered with m, over that at m = 0.

Arrays come in; how activations are collected is not this package's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .result import FitResult

Array = NDArray[np.float64]

VARIANCE = 0.9
DELTA = 0.05


@dataclass(frozen=True, eq=False)
class Manifold:
    """A low-rank model of clean activations at one layer.

    Attributes:
        mean: (d,) and components: (k, d), orthonormal rows; deviations: (k,) standard deviations along them.
        epsilon: radius of the neighbourhood off the plane (Eq. 9), in units of the activations.
        inner_radius: the same quantile of the distance from the mean inside the plane, in standard
            deviations.
        delta: share of clean activations that may lie outside. explained: share of the variance in the plane.
    """

    mean: Array
    components: Array
    deviations: Array
    epsilon: float
    inner_radius: float
    delta: float
    explained: float

    def distance(self, activations: ArrayLike) -> Array:
        """Distance d(h, M_l) off the plane of each activation, (..., d) -> (...), in units of the activations."""
        return self._distances(activations)[0]

    def validity(self, activations: ArrayLike) -> Array:
        """V of Eq. 10 of each activation, (..., d) -> (...), in (0, 1]; see the module for the form chosen."""
        off, inside = self._distances(activations)
        excess = np.maximum(off / self.epsilon, inside / self.inner_radius)
        return np.maximum(excess, 1.0) ** -2.0

    def _distances(self, activations: ArrayLike) -> tuple[Array, Array]:
        centred = np.asarray(activations, dtype=float) - self.mean
        along = centred @ self.components.T
        off = np.linalg.norm(centred - along @ self.components, axis=-1)
        return off, np.linalg.norm(along / self.deviations, axis=-1)


@dataclass(frozen=True, eq=False)
class MeasuredDecay:
    """Validity along m, beside the decay a fit deduced from the losses.

    Attributes:
        m: (M,) strengths, ascending. validity: (M,) mean V at each. decay: (M,) measured D(m), 1 at m = 0.
        distance: (M,) mean distance off the plane over epsilon.
        fitted: (M,) D(m) of a fit over its value at m = 0; None when no fit was given.
        rank_correlation: Spearman's of ``decay`` and ``fitted``; None without a fit, NaN when either is
            constant.
    """

    m: Array
    validity: Array
    decay: Array
    distance: Array
    fitted: Array | None
    rank_correlation: float | None


def fit_manifold(clean: ArrayLike, delta: float = DELTA, rank: int | None = None, seed: int = 0) -> Manifold:
    """The plane through clean activations, and the radius of its neighbourhood at ``delta``.

    Half of the activations, drawn with ``seed``, give the plane, the other half the radii: measured on the
    points that chose the components, epsilon would be too small.

    Args:
        clean: (N, d) activations at layer l over inputs the model handles well, at least 8.
        delta: share of clean activations allowed outside (Eq. 9), in (0, 1).
        rank: number of components; None takes as many as explain 90% of the variance.
    Raises:
        DataError: too few, not finite or constant activations, or delta or rank out of range.
    """
    points = np.asarray(clean, dtype=float)
    if points.ndim != 2 or len(points) < 8:
        raise DataError(f"The clean activations have shape {points.shape}; give (N, d) with N of at least 8.")
    if not np.isfinite(points).all():
        raise DataError("A clean activation is not finite; leave such inputs out.")
    if not 0 < delta < 1:
        raise DataError(f"delta is {delta}; give a share between 0 and 1.")
    order = np.random.default_rng(seed).permutation(len(points))
    found, held_out = points[order[: len(points) // 2]], points[order[len(points) // 2 :]]
    mean = found.mean(axis=0)
    _, singular, rows = np.linalg.svd(found - mean, full_matrices=False)
    share = np.cumsum(singular**2)
    if share[-1] <= 1e-24 * max(1.0, float((mean**2).sum())):
        raise DataError("The clean activations are all alike; take them from different inputs.")
    share /= share[-1]
    most = min(int((singular > 1e-10 * singular[0]).sum()), points.shape[1] - 1)
    k = int(np.searchsorted(share, VARIANCE)) + 1 if rank is None else rank
    if rank is None:
        k = min(k, most)
    if not 1 <= k <= most:
        raise DataError(f"rank is {k}; these activations allow 1 to {most} components.")
    plane = Manifold(mean, rows[:k], singular[:k] / np.sqrt(len(found) - 1), 1.0, 1.0, delta, float(share[k - 1]))
    off, inside = plane._distances(held_out)
    epsilon, inner = (float(np.quantile(values, 1 - delta, method="higher")) for values in (off, inside))
    if epsilon <= 0:
        raise DataError(f"Every activation lies in the plane of {k} components; give a smaller rank.")
    return Manifold(mean, plane.components, plane.deviations, epsilon, inner, delta, plane.explained)


def measured_decay(
    manifold: Manifold, m: ArrayLike, activations: Sequence[ArrayLike], fit: FitResult | None = None
) -> MeasuredDecay:
    """Validity and D(m) along m from steered activations, and their agreement with a fitted D(m).

    Args:
        manifold: from ``fit_manifold`` at the same layer.
        m: (M,) distinct strengths, 0 among them.
        activations: M arrays (N, d), the activations of the same inputs steered with each m.
        fit: a preference or utility fit whose D(m) is compared; NaN where it has no branch is left out.
    Raises:
        DataError: lengths differ, m = 0 is missing, or a strength is listed twice.
    """
    strengths = np.asarray(m, dtype=float)
    if strengths.ndim != 1 or len(strengths) != len(activations):
        raise DataError(
            f"{len(activations)} sets of activations for strengths of shape {strengths.shape}; give one each."
        )
    if len(np.unique(strengths)) != len(strengths) or 0.0 not in strengths:
        raise DataError("The strengths must be distinct and include m = 0, which D(m) is measured against.")
    order = np.argsort(strengths)
    strengths = strengths[order]
    sets = [np.asarray(activations[i], dtype=float) for i in order]
    validity = np.array([manifold.validity(points).mean() for points in sets])
    distance = np.array([manifold.distance(points).mean() for points in sets]) / manifold.epsilon
    decay = validity / validity[strengths == 0]
    fitted, correlation = None, None
    if fit is not None:
        fitted = fit.decay(strengths) / fit.decay(np.zeros(1))
        both = np.isfinite(fitted)
        correlation = rank_correlation(decay[both], fitted[both])
    return MeasuredDecay(strengths, validity, decay, distance, fitted, correlation)


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's rank correlation of two (K,) arrays, ties at their mean rank; NaN when either is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    ranks = [np.searchsorted(np.sort(a), a, "left") + np.searchsorted(np.sort(a), a, "right") for a in (first, second)]
    return float(np.corrcoef(ranks)[0, 1])
