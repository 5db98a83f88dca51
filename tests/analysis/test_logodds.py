"""Eqs. 7 and 8 against mpmath at 50 digits, and what happens to points that do not exist."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest

from easyedit_split.analysis import curves, pref_log_odds, util_log_odds
from easyedit_split.analysis.logodds import make_curve
from easyedit_split.errors import DataError, FitError

LOSSES = [float(f"1e{k}") for k in range(-12, 7)] + [0.5, 0.69, 0.7, 2.5, 30.0, 40.0, 745.0, 1234.5]
# Two correctly rounded operations on exact inputs; the utility loses a little where s is near 0, see `slack`.
EPS = np.finfo(float).eps


def exact_utility(loss_pos: float, loss_neg: float) -> mpmath.mpf | None:
    """log(P / (1 - P)) at 50 significant digits of 1 - P; None when P >= 1."""
    with mpmath.workdps(80):
        pos, neg = mpmath.mpf(loss_pos), mpmath.mpf(loss_neg)
        total = mpmath.exp(-pos) + mpmath.exp(-neg)
        return None if total >= 1 else +(mpmath.log(total) - mpmath.log(1 - total))


def test_preference_is_the_difference_of_the_losses():
    # P_p = 1/2, P_n = 1/8: odds 4
    assert pref_log_odds(np.log(2.0), np.log(8.0)) == pytest.approx(np.log(4.0), rel=4 * EPS)
    with mpmath.workdps(50):
        for pos, neg in itertools.product(LOSSES, LOSSES):
            wanted = float(mpmath.mpf(neg) - mpmath.mpf(pos))
            assert float(pref_log_odds(pos, neg)) == wanted  # one subtraction is correctly rounded


def test_utility_by_hand():
    # P_p = 1/2, P_n = 1/4: 3/4 against 1/4
    assert util_log_odds(np.log(2.0), np.log(4.0)) == pytest.approx(np.log(3.0), rel=4 * EPS)


@pytest.mark.parametrize("loss_pos", LOSSES)
def test_utility_against_fifty_digits(loss_pos: float):
    for loss_neg in LOSSES:
        wanted = exact_utility(loss_pos, loss_neg)
        got = float(util_log_odds(loss_pos, loss_neg))
        if wanted is None:
            assert np.isnan(got), (loss_pos, loss_neg)
            continue
        # A relative error eps in a loss moves s by eps * loss e^-loss / P, and the value by that over 1 - P:
        # this is what no formula in double precision can avoid. 4 eps relative for the operations themselves.
        with mpmath.workdps(80):
            total = mpmath.exp(-mpmath.mpf(loss_pos)) + mpmath.exp(-mpmath.mpf(loss_neg))
            moved = max(x * mpmath.exp(-mpmath.mpf(x)) for x in (loss_pos, loss_neg)) / total
            slack = float(4 * EPS * (abs(wanted) + (moved + abs(mpmath.log(total))) / (1 - total)))
        assert abs(got - float(wanted)) <= slack, (loss_pos, loss_neg, got, float(wanted))


def test_utility_of_disjoint_events_is_always_defined():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.3, 0.3, 0.3], size=10_000)
    probabilities = probabilities[(probabilities > 1e-12).all(axis=1)]
    utility = util_log_odds(-np.log(probabilities[:, 0]), -np.log(probabilities[:, 1]))
    assert np.isfinite(utility).all()
    wanted = np.log(probabilities[:, :2].sum(axis=1) / probabilities[:, 2])
    # the reference itself loses digits where 1 - P is small, down to 1e-12 / eps: 1e-3 relative at worst
    np.testing.assert_allclose(utility, wanted, rtol=1e-3, atol=1e-3)


def test_the_two_answers_may_be_exchanged():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 20, (2, 3, 5))
    np.testing.assert_array_equal(pref_log_odds(a, b), -pref_log_odds(b, a))
    np.testing.assert_array_equal(util_log_odds(a, b), util_log_odds(b, a))


def test_undefined_points_are_nan_and_never_clipped():
    assert np.isnan(util_log_odds(0.1, 0.1))  # P = 1.8
    assert np.isnan(util_log_odds(np.log(2.0) - 1e-15, np.log(2.0) - 1e-15))
    assert np.isnan(util_log_odds(np.nan, 1.0)) and np.isnan(pref_log_odds(np.nan, 1.0))
    assert np.isnan(pref_log_odds(np.inf, np.inf)) and np.isnan(util_log_odds(np.inf, np.inf))
    assert np.isnan(pref_log_odds(np.inf, 1.0))
    assert util_log_odds(np.inf, np.log(4.0)) == pytest.approx(np.log(1 / 3), rel=4 * EPS)


def test_curve_counts_undefined_points_and_averages_the_rest():
    values = np.array([[1.0, 3.0, np.nan], [2.0, np.inf, np.nan], [np.nan] * 3])
    curve = make_curve("utility", [2.0, 1.0, 0.0], values)
    np.testing.assert_array_equal(curve.m, [0.0, 1.0, 2.0])  # sorted by m
    np.testing.assert_array_equal(curve.mean, [np.nan, 2.0, 2.0])
    np.testing.assert_array_equal(curve.undefined, [3, 2, 1])
    assert (curve.n_undefined, curve.n_points) == (6, 9)
    # deviations -1 and 1: variance 2 over n = 2
    np.testing.assert_array_equal(curve.stderr, [np.nan, np.nan, 1.0])


def test_wrong_input_names_the_value():
    with pytest.raises(DataError, match=r"\(2,\) and \(3,\)"):
        pref_log_odds([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="-3"):
        util_log_odds([-3.0], [1.0])
    with pytest.raises(DataError, match="m = 1 more than once"):
        make_curve("preference", [0.0, 1.0, 1.0], np.ones((3, 2)))
    with pytest.raises(DataError, match="nan"):
        make_curve("preference", [0.0, np.nan], np.ones((2, 2)))
    with pytest.raises(DataError, match="do not match"):
        make_curve("preference", [0.0, 1.0], np.ones((3, 2)))


def test_a_sweep_without_any_defined_utility_says_what_to_do():
    low = np.full((3, 4), 0.1)
    table = SimpleNamespace(factors=np.arange(3.0), loss_pos=low, loss_neg=low, reduction="mean", header={})
    with pytest.raises(FitError, match="reduction='sum'"):
        curves(table)
    table.loss_pos = np.full((3, 4), np.nan)
    with pytest.raises(FitError, match="measure the sweep again"):
        curves(table)
