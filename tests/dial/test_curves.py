"""What the page is told of a sweep is what `analyse` says of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from easyedit_split import SweepTable
from easyedit_split.analysis import analyse
from easyedit_split.dial.curves import curves_of, curves_of_pair


def _table(grid: np.ndarray, reduction: str = "sum") -> SweepTable:
    """Preference 8 tanh(m), utility -1 - m^2, of 12 pairs that differ by a constant."""
    shift = np.linspace(-0.2, 0.2, 12)
    preference = 8 * np.tanh(grid)[:, None] + shift
    utility = -1 - grid[:, None] ** 2 + shift
    s = -np.log1p(np.exp(-utility))  # log(P_p + P_n)
    loss_pos = -(s - np.log1p(np.exp(-preference)))
    loss_neg = loss_pos + preference
    return SweepTable(grid, loss_pos, loss_neg, reduction, np.ones(12), np.ones(12), {})


def test_measured_points_law_and_strength() -> None:
    table = _table(np.linspace(-4, 4, 33))
    told, found = curves_of(table, 2.0), analyse(table, 2.0)
    assert json.loads(json.dumps(told, allow_nan=False))["advice"] == found.advice
    np.testing.assert_allclose(told["preference"], found.preference.mean)
    np.testing.assert_allclose(told["utility"], -1 - np.linspace(-4, 4, 33) ** 2, atol=1e-9)
    assert told["recommended"]["m"] == found.recommendation.m
    assert told["recommended"]["reliable"] is found.recommendation.reliable
    at = told["law"]["m"].index(found.recommendation.m)
    assert told["law"]["utility_at_zero"] - told["law"]["utility"][at] == pytest.approx(
        found.recommendation.utility_drop
    )


def test_the_budget_is_spent_where_utility_has_fallen_by_it() -> None:
    """Utility falls by m^2: a budget of 2 nats is spent at m = -+sqrt(2), a budget of 20 nowhere in the sweep."""
    table = _table(np.linspace(-4, 4, 33))
    low, high = curves_of(table, 2.0)["budget"]["stretch"]
    assert (low, high) == (pytest.approx(-(2**0.5), abs=0.03), pytest.approx(2**0.5, abs=0.03))
    assert curves_of(table, 20.0)["budget"]["stretch"] == (-4.0, 4.0)


def test_a_sweep_that_no_law_fits_has_its_points_and_the_reason() -> None:
    told = curves_of(_table(np.array([-1.0, 0.0, 1.0])))
    assert told["law"] is None and told["recommended"] is None and told["budget"]["stretch"] is None
    assert len(told["preference"]) == 3 and told["advice"]


def test_undefined_points_are_none() -> None:
    table = _table(np.linspace(-4, 4, 33), "mean")
    table.loss_pos[3] = 0.01
    table.loss_neg[3] = 0.02
    told = curves_of(table)
    assert told["utility"][3] is None and told["utility"][4] is not None
    json.dumps(told, allow_nan=False)


def test_a_pair_is_its_own_log_odds() -> None:
    table = _table(np.array([0.0, 1.0]))
    one = SweepTable(table.factors, table.loss_pos[:, :1], table.loss_neg[:, :1], "sum", np.ones(1), np.ones(1), {})
    told = curves_of_pair(one)
    np.testing.assert_allclose(told["preference"], one.preference()[:, 0])
    np.testing.assert_allclose(told["utility"], one.utility()[:, 0])
