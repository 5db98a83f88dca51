"""Eqs. 15 and 17: values by hand, derivatives against central differences."""

from __future__ import annotations

import numpy as np
import pytest

from easyedit_split.analysis import fitted_curves

SHAPE = np.array([1.5, 40.0, 0.8, -2.0, 25.0, 1.7])
PARAMS = {"preference": np.array([0.7, -1.2, 0.4, *SHAPE]), "utility": np.array([-1.2, 0.4, *SHAPE])}
M = np.array([-30.0, -7.3, -2.0, -0.4, 0.0, 0.3, 1.5, 4.0, 25.0])


def test_curves_by_hand():
    shape = [2.0, 3.0, 2.0, -1.0, 9.0, 1.0]
    assert fitted_curves.curve("preference", [5.0], [2.0, 6.0, -1.0, *shape])[0] == pytest.approx(16 / 16 - 1)
    assert fitted_curves.curve("utility", [-4.0], [6.0, -1.0, *shape])[0] == pytest.approx(6 / 2 - 1)


def central(function, at: float, step: float):
    return (function(at + step) - function(at - step)) / (2 * step)


# Central differences with step h err by h^2 f''' / 6 + eps |f| / h; with h = 1e-5 both stay below 1e-8.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-8}


@pytest.mark.parametrize("kind", ["preference", "utility"])
def test_slopes_against_differences(kind: str):
    away = M[M != 0]  # the branches meet at 0
    slope = fitted_curves.curve_slope(kind, away, PARAMS[kind])
    found = central(lambda m: fitted_curves.curve(kind, m, PARAMS[kind]), away, 1e-5)
    np.testing.assert_allclose(slope, found, **TOLERANCE)


@pytest.mark.parametrize("kind", ["preference", "utility"])
def test_parameter_derivatives_against_differences(kind: str):
    params = PARAMS[kind]
    gradient = fitted_curves.curve_gradient(kind, M, params)
    assert gradient.shape == (len(M), len(fitted_curves.parameter_names(kind)))
    for i in range(len(params)):

        def moved(value: float, i: int = i):
            changed = params.copy()
            changed[i] = value
            return fitted_curves.curve(kind, M, changed)

        np.testing.assert_allclose(gradient[:, i], central(moved, params[i], 1e-5), **TOLERANCE)
