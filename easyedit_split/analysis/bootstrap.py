"""Bootstrap over examples: drawn curves, and intervals of what is read off them.

A sweep measures every strength on the same examples, so the points of a curve move together. Examples are
therefore drawn whole, with replacement, and the curve over m is taken again from each draw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from .logodds import Curve

Array = NDArray[np.float64]

LEVEL = 0.95


def draw_counts(n_examples: int, n_boot: int, seed: int) -> Array:
    """How often each example is in each draw, (n_boot, n_examples); rows sum to n_examples."""
    if n_boot < 1:
        raise FitError(f"n_boot is {n_boot}; a bootstrap needs at least 1 draw, 1000 is usual.")
    if seed < 0:
        raise FitError(f"seed is {seed}; give a whole number of 0 or more.")
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
