"""A budget of utility in nats, or in nats a token of the mean answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_advice import GRID, falling, rising, sweep

from easyedit_split import SweepTable, analysis
from easyedit_split.analysis.budget import PerToken, budget_said, in_unit_of, parse_budget
from easyedit_split.errors import FitError
from easyedit_split.sweeps.refine import set_out


def table(tokens_pos: float = 10.0, tokens_neg: float = 30.0) -> SweepTable:
    found = sweep(GRID, rising, falling)
    n = found.loss_pos.shape[1]
    counts = np.full(n, tokens_pos), np.full(n, tokens_neg)
    return SweepTable(found.factors, found.loss_pos, found.loss_neg, "sum", *counts, {})


def test_it_is_read_as_it_is_written():
    assert parse_budget("0.5") == 0.5 and parse_budget("0.05/token") == PerToken(0.05)
    assert str(PerToken(0.05)) == "0.05/token"
    for wrong in ("", "x", "/token", "1/tokens", "0.1/answer"):
        with pytest.raises(ValueError):
            parse_budget(wrong)


def test_a_token_of_the_mean_answer():
    assert in_unit_of(table(), PerToken(0.05)) == pytest.approx(0.05 * 20)
    assert in_unit_of(table().reduced("mean"), PerToken(0.05)) == 0.05
    assert in_unit_of(table(), 0.7) == 0.7 == in_unit_of(table().reduced("mean"), 0.7)


def test_both_ways_are_said():
    assert budget_said(table(), 1.0) == (
        "1 nat for a whole answer, 0.05 nats a token (an answer has 20 tokens on average)"
    )
    assert budget_said(table(), PerToken(0.1)) == (
        "2 nats for a whole answer, 0.1 nats a token (an answer has 20 tokens on average)"
    )
    assert budget_said(table(10.0, 36.6), PerToken(0.05)) == (  # 1.165 nats
        "1.17 nats for a whole answer, 0.05 nats a token (an answer has 23.3 tokens on average)"
    )
    assert budget_said(table().reduced("mean"), 0.1) == (
        "0.1 nats a token, 2 nats for a whole answer (an answer has 20 tokens on average)"
    )
    assert budget_said(sweep(GRID, rising, falling), 1.0) == "1 nat"


def test_the_advice_is_that_of_the_same_budget_in_nats():
    whole, token = analysis.analyse(table(), 2.0), analysis.analyse(table(), PerToken(0.1))
    assert token.recommendation.m == whole.recommendation.m != analysis.analyse(table(), 1.0).recommendation.m
    assert token.recommendation.max_utility_drop == 2.0 and token.advice == whole.advice
    short = analysis.analyse(table(5, 15), PerToken(0.1))
    assert short.recommendation.m < token.recommendation.m  # shorter answers can lose less


def test_what_cannot_be_used_is_refused():
    with pytest.raises(FitError, match="does not say how long its answers are: give nats"):
        analysis.analyse(sweep(GRID, rising, falling), PerToken(0.1))
    for wrong in (PerToken(-0.1), PerToken(float("nan")), -1.0):
        with pytest.raises(FitError, match="give a finite number of nats, at least 0"):
            in_unit_of(table(), wrong)


def test_a_refined_sweep_keeps_its_budget_as_text_or_number():
    assert set_out([0, 1], PerToken(0.05))["refined"]["max_utility_drop"] == "0.05/token"
    assert set_out([0, 1], 1.0)["refined"]["max_utility_drop"] == 1.0
    assert replace(table(), header=set_out([0.0], PerToken(0.05))).settings_id
