"""The decay law D(m) of Eq. 12 with its derivatives; the curves built on it are in `fitted_curves`.

D(m) = [1 + (m - m_+)^2 / L_+]^(-p_+) for m >= 0, and the same with m_-, L_-, p_- for m < 0.
The branches meet at m = 0, where the slope of D jumps unless both centres are 0. In the smooth law, ours, both
branches have one centre c of either sign and meet there, where D is 1 and flat: no jump of slope anywhere, and as many
free parameters. A shape with m_+ = m_- is of the smooth law (with both at 0 the two laws are one).
D is computed as exp(-p log1p((m - centre)^2 / L)), which neither overflows nor loses digits near the centre.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Law = Literal["paper", "smooth"]

SHAPE_NAMES = ("m_plus", "L_plus", "p_plus", "m_minus", "L_minus", "p_minus")


def on_branch(m: ArrayLike, sides: str) -> Array:
    """Strengths at which a curve is evaluated: where only the negative branch was fitted (``"minus"``), 0 is its end,
    so it becomes the largest number below 0."""
    m = np.asarray(m, dtype=float)
    return np.where(m == 0, -5e-324, m) if sides == "minus" else m


def _left(m: Array, shape: Array) -> NDArray[np.bool_]:
    """Which strengths belong to the negative branch: those left of 0, or of the centre that both branches share."""
    return m < (shape[0] if shape[0] == shape[3] else 0.0)


def _by_sign(m: Array, shape: Array) -> tuple[Array, Array, Array]:
    """Centre, L and p that apply at each m; where the branches meet it is the positive one."""
    negative = _left(m, shape)
    return (
        np.where(negative, shape[3], shape[0]),
        np.where(negative, shape[4], shape[1]),
        np.where(negative, shape[5], shape[2]),
    )


def decay(m: ArrayLike, shape: ArrayLike) -> Array:
    """D(m) of Eq. 12.

    Args:
        m: (M,) steering strengths.
        shape: (6,) in the order of ``SHAPE_NAMES``; every L and p is positive.
    Returns:
        (M,) values in (0, 1].
    """
    m = np.asarray(m, dtype=float)
    centre, scale, power = _by_sign(m, np.asarray(shape, dtype=float))
    return np.exp(-power * np.log1p((m - centre) ** 2 / scale))


def decay_slope(m: ArrayLike, shape: ArrayLike) -> Array:
    """dD/dm at each m, shape (M,). At m = 0 it is the slope of the positive branch."""
    m = np.asarray(m, dtype=float)
    shape = np.asarray(shape, dtype=float)
    centre, scale, power = _by_sign(m, shape)
    offset = m - centre
    return -2.0 * power * offset / (scale + offset**2) * decay(m, shape)


def decay_gradient(m: ArrayLike, shape: ArrayLike) -> Array:
    """Derivatives of D(m) in the six shape parameters, shape (M, 6). Zero in those of the other branch."""
    m = np.asarray(m, dtype=float)
    shape = np.asarray(shape, dtype=float)
    centre, scale, power = _by_sign(m, shape)
    offset = m - centre
    value = decay(m, shape)
    by_centre = 2.0 * power * offset / (scale + offset**2) * value
    by_scale = power * offset**2 / (scale * (scale + offset**2)) * value
    by_power = -np.log1p(offset**2 / scale) * value
    branch = np.stack([by_centre, by_scale, by_power], axis=1)
    negative = _left(m, shape)[:, None]
    return np.hstack([np.where(negative, 0.0, branch), np.where(negative, branch, 0.0)])


def continuity_gap(shape: ArrayLike) -> float:
    """D(0+) - D(0-): zero for a decay that is continuous at m = 0, as App. D asks; the smooth law is by its shape."""
    shape = np.asarray(shape, dtype=float)
    if shape[0] == shape[3]:
        return 0.0
    right = np.exp(-shape[2] * np.log1p(shape[0] ** 2 / shape[1]))
    left = np.exp(-shape[5] * np.log1p(shape[3] ** 2 / shape[4]))
    return float(right - left)
