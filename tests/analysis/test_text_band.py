"""The band of strengths at which texts hold: around 0, connected, and what is said where advice lies outside it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from test_advice import GRID, falling, names, rising, sweep

from easyedit_split import analysis
from easyedit_split.analysis.explained import EXPLAINED
from easyedit_split.analysis.text_band import DIVERGENCE, REPETITION, doubts_of_texts, text_band, texts_hold
from easyedit_split.analysis.text_report import likelier_share, plot_texts, text_table
from easyedit_split.analysis.texts import SweptTexts, TextMeasures
from easyedit_split.errors import FitError


def texts(m, perplexity=None, repetition=None, divergence=None, sampled: float = 20.0) -> SweptTexts:
    """Texts whose measures hold but for what is given: m -> value."""
    m = np.asarray(m, float)

    def column(value: float, given) -> np.ndarray:
        return np.array([(given or {}).get(float(x), value) for x in m])

    measures = TextMeasures(
        column(5.0, perplexity), sampled, 5.0, column(0.1, repetition), 0.1, column(0.2, divergence), np.abs(m) * 0.3
    )
    return SweptTexts(m, ("q", "r"), tuple(("a", "b") for _ in m), 8, measures)


M = [-2, -1, 0, 1, 2, 3, 4]


def test_each_check_ends_the_band_alone():
    for broken, words in (
        ({"perplexity": {3.0: 20.1}}, "at m = 3 perplexity 20.1 (at most 20)"),
        ({"repetition": {3.0: 0.1 + REPETITION + 0.01}}, "at m = 3 repetition 0.31 (at most 0.3)"),
        ({"divergence": {3.0: DIVERGENCE + 0.1}}, "at m = 3 KL on unrelated prompts 0.6 nats a token (at most 0.5)"),
    ):
        band = text_band(texts(M, **broken), 4.0)
        assert (band.low, band.high, band.above, band.below) == (0, 2, 3, None)
        assert str(band) == f"Texts hold from m = 0 to m = 2, measured on 2 questions: {words}."


def test_a_value_at_its_bound_holds_and_a_missing_one_does_not():
    assert text_band(texts(M, perplexity={3.0: 20.0}), 4.0).high == 4
    assert text_band(texts(M, divergence={3.0: np.nan}), 4.0).high == 2


def test_the_models_own_greedy_answers_are_no_worse_than_its_bound():
    """Where its greedy answers are less likely than its samples, the former are the bound."""
    found = texts(M, sampled=2.0)
    assert texts_hold(found.measures).all()


def test_the_band_is_connected_and_on_the_side_of_m():
    found = texts(M, perplexity={-2.0: 30.0, 2.0: 30.0})
    above, below, both = (text_band(found, m) for m in (4.0, -1.0, 0.0))
    assert (above.low, above.high, above.above) == (0, 1, 2)  # that 3 and 4 hold again does not count
    assert (below.low, below.high, below.below, below.above) == (-1, 0, -2, None)
    assert (both.low, both.high, both.below, both.above) == (-1, 1, -2, 2)
    assert text_band(texts(M), 3.0).above is None and "as far as the sweep goes" in str(text_band(texts(M), 3.0))


def test_without_measures_nothing_is_said():
    plain = SweptTexts(np.array(M, float), ("q",), tuple(("a",) for _ in M), 8)
    for found in (None, plain):
        assert text_band(found, 1.0) is None and not list(doubts_of_texts(found, 1.0))


def test_a_strength_outside_says_what_fails_there_with_value_and_bound():
    found = texts(M, perplexity={2.0: 30.0}, divergence={4.0: 1.0, 2.0: 0.75})
    (outside,) = doubts_of_texts(found, 4.0)
    assert outside.name == "texts" and "texts" in EXPLAINED
    assert outside.sentence == "Texts fail at m = 4: KL on unrelated prompts 1 nats a token (at most 0.5)."
    (hidden,) = doubts_of_texts(found, 3.0)
    assert hidden.sentence == (
        "Texts fail on the way to m = 3, at m = 2: perplexity 30 (at most 20), KL on unrelated prompts 0.75 nats a "
        "token (at most 0.5)."
    )
    assert not list(doubts_of_texts(found, 1.0)) and not list(doubts_of_texts(found, 0.0))


def test_advice_outside_the_band_is_not_reliable_and_inside_it_is():
    table = sweep(GRID, rising, falling)
    plain = analysis.analyse(table)
    inside = analysis.analyse(table, texts=texts(GRID, divergence={4.0: 2.0}))
    best = inside.recommendation
    assert plain.recommendation.reliable and plain.recommendation.texts is None
    assert best.reliable and best.m == plain.recommendation.m and (best.texts.low, best.texts.high) == (0, 3.5)
    assert "Texts hold from m = 0 to m = 3.5, measured on 2 questions: at m = 4 KL" in inside.advice
    outside = analysis.analyse(table, texts=texts(GRID, perplexity={best.m: 99.0}))
    assert outside.recommendation.m == best.m and names(outside) == {"texts"}
    assert outside.advice.startswith("Not reliable: m = ")
    assert f"Texts fail at m = {best.m:.3g}: perplexity 99 (at most 20)." in outside.advice


def test_the_strength_that_is_kept_keeps_the_band():
    from easyedit_split.calibrate import calibration_of
    from easyedit_split.changes.calibration import Calibration

    found = analysis.analyse(sweep(GRID, rising, falling), texts=texts(GRID, divergence={4.0: 2.0}))
    kept = calibration_of(found)
    assert kept.texts == (0.0, 3.5) and "texts hold from m = 0 to 3.5" in str(kept)
    assert Calibration.from_json(kept.as_json()) == kept
    old = {k: v for k, v in kept.as_json().items() if k != "texts"}
    assert Calibration.from_json(old).texts is None


def test_the_table_shows_every_measure_and_the_concept_beside():
    table = sweep(GRID, rising, falling)
    found = analysis.analyse(table, texts=texts(GRID, perplexity={6.0: 30.0}))
    shown = text_table({("split", "vector"): found, "none": analysis.analyse(table)})
    assert len(shown.rows) == len(GRID) and not text_table({"none": analysis.analyse(table)}).rows
    last = dict(zip(shown.columns, shown.rows[-1], strict=True))
    assert last["m"] == 6 and last["perplexity"] == 30 and last["fails"] == "perplexity"
    assert last["relative dose"] == pytest.approx(1.8)
    share = np.mean(table.loss_pos[-1] < table.loss_neg[-1])
    assert last["wanted answer likelier (share)"] == pytest.approx(share)
    figure = plot_texts("SPLIT", found)
    with pytest.raises(FitError, match="sweep with --texts N"):
        plot_texts("SPLIT", analysis.analyse(table))
    assert len(figure.axes) == 4 and figure.axes[0].get_yscale() == "log"


def test_a_tie_counts_half():
    curve = SimpleNamespace(values=np.array([[1.0, 0.0, -1.0, np.nan], [np.nan] * 4]))
    share = likelier_share(curve)
    assert share[0] == 0.5 and np.isnan(share[1])
