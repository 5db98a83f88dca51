"""The two curves that are fitted, with their derivatives: preference of Eq. 15 and utility of Eq. 17.

Preference is (alpha m + beta) D(m) + b, utility is beta D(m) + b, both in nats; D is the decay of Eq. 12 (`decay`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .decay import SHAPE_NAMES, decay, decay_gradient, decay_slope

Array = NDArray[np.float64]
Kind = Literal["preference", "utility"]

LINEAR_NAMES: dict[str, tuple[str, ...]] = {"preference": ("alpha", "beta", "b"), "utility": ("beta", "b")}


def parameter_names(kind: Kind) -> tuple[str, ...]:
    """Names of the parameters of a curve, in the order every function here takes them: 9 or 8 of them."""
    return LINEAR_NAMES[kind] + SHAPE_NAMES


def _split(kind: Kind, params: ArrayLike) -> tuple[float, float, float, Array]:
    """alpha (0 for utility), beta, b and the shape."""
    params = np.asarray(params, dtype=float)
    if kind == "preference":
        return float(params[0]), float(params[1]), float(params[2]), params[3:]
    return 0.0, float(params[0]), float(params[1]), params[2:]


def curve(kind: Kind, m: ArrayLike, params: ArrayLike) -> Array:
    """The curve of Eq. 15 (preference) or Eq. 17 (utility) at m, in nats, shape (M,)."""
    m = np.asarray(m, dtype=float)
    alpha, beta, b, shape = _split(kind, params)
    return (alpha * m + beta) * decay(m, shape) + b


def curve_slope(kind: Kind, m: ArrayLike, params: ArrayLike) -> Array:
    """Derivative of the curve in m, nats per unit of m, shape (M,)."""
    m = np.asarray(m, dtype=float)
    alpha, beta, _, shape = _split(kind, params)
    return alpha * decay(m, shape) + (alpha * m + beta) * decay_slope(m, shape)


def curve_gradient(kind: Kind, m: ArrayLike, params: ArrayLike) -> Array:
    """Derivatives of the curve in its parameters, shape (M, 9) or (M, 8), in ``parameter_names`` order."""
    m = np.asarray(m, dtype=float)
    alpha, beta, _, shape = _split(kind, params)
    value = decay(m, shape)
    linear = [value, np.ones_like(m)]
    if kind == "preference":
        linear.insert(0, m * value)
    return np.hstack([np.stack(linear, axis=1), (alpha * m + beta)[:, None] * decay_gradient(m, shape)])
