"""What the page's script is given is what the analysis says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sweeps import M, sweep

from easyedit_split import analysis
from easyedit_split.analysis.drawn_lines import lines
from easyedit_split.analysis.page_data import Method, page_data, plain
from easyedit_split.analysis.texts import SweptTexts


@pytest.fixture(scope="module")
def found():
    return analysis.analyse(sweep(0), 0.5, n_boot=50)


def test_curves_front_and_strength(found):
    told = page_data([Method("split", "a", {"mean": found})])
    json.dumps(told, allow_nan=False)
    assert told["budget"] == 0.5 and told["spending"] == 4.0
    assert set(told["budgets"].values()) == {0.5}
    one = told["methods"][0]["sweeps"]["mean"]
    np.testing.assert_allclose(one["preference"]["mean"], found.preference.mean, rtol=1e-4)
    np.testing.assert_allclose(one["utility"]["interval"], found.utility_interval, rtol=1e-4)
    m, law, _ = lines(found.utility, found.utility_interval, found.utility_fit, 201)
    known = np.isfinite(law)
    np.testing.assert_allclose(np.array(one["utility"]["line"]["law"], float)[known], law[known], rtol=1e-4)
    assert [v is None for v in one["utility"]["line"]["law"]] == list(~known) and len(m) >= 201
    best = found.recommendation
    assert (one["best"]["m"], one["best"]["reliable"]) == (best.m, best.reliable)
    np.testing.assert_allclose(one["measured"]["loss"], found.measured.spent, rtol=1e-4)
    assert one["front"]["loss"] == sorted(one["front"]["loss"])


def test_texts_have_the_gain_and_the_loss_of_their_strength(found):
    texts = SweptTexts(M[::10], ("q",), tuple((f"a{k}",) for k in range(5)), 8)
    told = page_data([Method("split", "a", {"mean": found}, texts)])["methods"][0]["texts"]
    assert told["answers"] == [[f"a{k}"] for k in range(5)]
    for k, m in enumerate(M[::10]):
        assert (told["gain"][k], told["loss"][k]) == pytest.approx(found.measured_at(m), rel=1e-4)


def test_what_was_not_measured_is_none():
    assert plain([[1.0, np.nan], [np.inf, 123456.0]]) == [[1.0, None], [None, 123460.0]]
    few = sweep(0)
    few.factors, few.loss_pos, few.loss_neg = M[20:23], few.loss_pos[20:23], few.loss_neg[20:23]
    told = page_data([Method("few", "few", {"mean": analysis.analyse(few, n_boot=5)})])
    one = told["methods"][0]["sweeps"]["mean"]
    assert told["budget"] is None and one["best"] is one["front"] is None
    assert one["measured"]["m"] == [0.0, 1.0, 2.0], "gains and losses need no law"
    few.factors = few.factors + 1
    told = page_data([Method("few", "few", {"mean": analysis.analyse(few, n_boot=5)})])
    assert told["methods"][0]["sweeps"]["mean"]["measured"] is None
