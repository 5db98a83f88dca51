"""The page's words: the headline, the warnings, and which texts stand side by side. What is done with it by hand is in
`tests/integration/test_report_in_browser.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sweeps import M, sweep

from easyedit_split import analysis
from easyedit_split.analysis import reliability
from easyedit_split.analysis.explained import EXPLAINED, LIMITS
from easyedit_split.analysis.page_data import Method
from easyedit_split.analysis.report_page import report_page, said, text_columns
from easyedit_split.analysis.texts import SweptTexts


@pytest.fixture(scope="module")
def found():
    return analysis.analyse(sweep(0), n_boot=50)


def _words(text: str) -> list[str]:
    return text.lower().replace(":", " ").replace(",", " ").replace(".", " ").split()


def test_the_advice_is_said_whole_and_once(found):
    doubted = analysis.analyse(sweep(1, undefined=3, scale=60.0), n_boot=50)
    assert doubted.recommendation.doubts
    for one in (found, doubted):
        headline, rest, doubts = said(one)
        assert one.advice.startswith(headline) and headline.endswith(one.recommendation.strength)
        whole = " ".join([headline, rest, *(doubt.sentence for doubt in doubts)])
        assert sorted(_words(whole)) == sorted(_words(one.advice))


def test_advice_in_other_words_is_kept_whole(found):
    other = replace(found, recommendation=replace(found.recommendation, m=None))
    assert said(other)[:2] == ("No strength to recommend", other.advice)


def test_every_word_of_advice_is_explained():
    import inspect
    import re

    names = set(re.findall(r'Doubt\(\s*"(\w+)"', inspect.getsource(reliability)))
    assert names and names <= set(EXPLAINED)
    from typing import get_args

    from easyedit_split.analysis.recommend import Limit

    assert set(get_args(Limit)) == set(LIMITS)


def _texts(m) -> SweptTexts:
    return SweptTexts(np.asarray(m, float), ("q1", "q2"), tuple((f"one at {v:g}", f"two at {v:g}") for v in m), 8)


def test_unsteered_recommended_and_too_much_stand_side_by_side(found):
    best = found.recommendation
    columns = text_columns(found, _texts(M))
    assert [kind for kind, _, _ in columns] == ["plain", "steered", "turned"]
    assert [M[row] for _, row, _ in columns] == [0.0, best.m, 20.0 * np.sign(best.m)]
    loss = found.measured_at(M[columns[-1][1]])[1]
    assert loss > 1 and f"too much: {loss:.3g} nats of utility lost" in columns[-1][2]
    nowhere = text_columns(found, _texts([1.25, 1.75]))
    assert [kind for kind, _, _ in nowhere] == ["turned"]


def test_a_page_says_how_to_get_texts_where_there_are_none(found):
    method = Method("a <b>", "a", {"mean": found})
    whole = report_page("t", {}, [method], [], [], [])
    assert "No texts are kept with these sweeps" in whole and "--texts 3" in whole and "a &lt;b&gt;" in whole
    both = report_page("t", {}, [method, Method("c", "c", {"mean": found}, _texts(M))], [], [], [])
    assert "No texts are kept with the sweep of a &lt;b&gt;" in both and "one at 0" in both
