"""Eq. 12: values by hand, derivatives against central differences."""

from __future__ import annotations

import numpy as np
import pytest

from easyedit_split.analysis import decay

SHAPE = np.array([1.5, 40.0, 0.8, -2.0, 25.0, 1.7])
M = np.array([-30.0, -7.3, -2.0, -0.4, 0.0, 0.3, 1.5, 4.0, 25.0])


def test_decay_by_hand():
    # [1 + (5 - 2)^2 / 3]^-2 = 4^-2, [1 + (-4 + 1)^2 / 9]^-1 = 1/2, and 0 belongs to the right branch: (1 + 4/3)^-2
    shape = [2.0, 3.0, 2.0, -1.0, 9.0, 1.0]
    np.testing.assert_allclose(decay.decay([5.0, -4.0, 0.0], shape), [1 / 16, 1 / 2, 9 / 49], rtol=1e-15)


def test_decay_keeps_its_digits_far_away():
    # 1e200 squared overflows nothing: (1 + 1e200 / 1e-4)^-0.05 = 10^-10.2 to rounding
    value = decay.decay([1e100], [0.0, 1e-4, 0.05, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(value, [10**-10.2], rtol=1e-12)


def central(function, at: float, step: float):
    return (function(at + step) - function(at - step)) / (2 * step)


# Central differences with step h err by h^2 f''' / 6 + eps |f| / h; with h = 1e-5 both stay below 1e-8.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-8}


def test_slope_against_differences():
    away = M[M != 0]  # the branches meet at 0
    slope = decay.decay_slope(away, SHAPE)
    np.testing.assert_allclose(slope, central(lambda m: decay.decay(m, SHAPE), away, 1e-5), **TOLERANCE)
    right = (decay.decay([1e-7], SHAPE) - decay.decay([0.0], SHAPE)) / 1e-7
    np.testing.assert_allclose(decay.decay_slope([0.0], SHAPE), right, rtol=1e-5)


def test_decay_derivatives_are_zero_in_the_other_branch():
    gradient = decay.decay_gradient(M, SHAPE)
    assert (gradient[M < 0, :3] == 0).all() and (gradient[M >= 0, 3:] == 0).all()


def test_continuity_gap():
    # right (1 + 4/4)^-1 = 1/2, left (1 + 9/3)^-1 = 1/4
    assert decay.continuity_gap([2.0, 4.0, 1.0, -3.0, 3.0, 1.0]) == pytest.approx(0.25, abs=1e-15)
    below = decay.decay([-5e-324], SHAPE)[0]
    assert decay.continuity_gap(SHAPE) == pytest.approx(decay.decay([0.0], SHAPE)[0] - below, abs=1e-15)
