"""Strengths placed by a change's own scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from laws import noisy
from tiny import tiny_model

from easyedit_split.data.pairs import PreferencePair
from easyedit_split.errors import ConfigError
from easyedit_split.sweeps.factors import PROBES, end_of_side, sweep_factors
from easyedit_split.sweeps.run import sweep

PAIRS = [PreferencePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(8)]


@pytest.mark.parametrize("points", [15, 20, 21])
def test_as_many_strengths_as_asked_for_and_zero_is_one(lend: Any, tokenizer: Any, points: int) -> None:
    found = sweep_factors(lend("qwen2"), tokenizer, PAIRS, noisy(lend("qwen2"), "vector", layer=2), points)
    assert len(found) == points == len(set(found))
    assert (np.diff(found) > 0).all() and 0.0 in found
    assert abs((found < 0).sum() - (found > 0).sum()) <= 1


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_each_side_ends_where_its_curves_have_no_more_to_tell(
    lend: Any, tokenizer: Any, kind: str, scale: float
) -> None:
    """By a sweep of all powers of two at once: nothing is decided before the end, and something at it."""
    model = lend(kind)
    artifact = noisy(model, "vector", layer=2, scale=scale)
    found = sweep_factors(model, tokenizer, PAIRS, artifact, 21)
    for sign, end in ((-1.0, found[0]), (1.0, found[-1])):
        table = sweep(model, tokenizer, PAIRS, artifact, [0.0, *(sign * m for m in PROBES)], "sum")
        utility, preference = table.utility().mean(axis=1), table.preference().mean(axis=1)
        spent = np.maximum.accumulate(utility) - utility
        moved = np.maximum.accumulate(np.abs(preference - preference[0]))
        furthest = [
            preference[: k + 1][np.abs(preference[: k + 1] - preference[0]).argmax()] for k in range(len(moved))
        ]
        turned = np.abs(np.array(furthest) - preference) > moved / 4
        rests = np.abs(np.diff(preference, prepend=np.inf)) < moved / 20
        over = (spent > 8) | ((moved > 1) & (turned | rests))
        last = int(np.argmax(over)) if over.any() else len(PROBES)
        assert end == sign * PROBES[last - 1]


def curves(preference: Any, utility: Any) -> Any:
    """Losses of two pairs with these mean log-odds."""

    def losses(m: float) -> np.ndarray:
        p, log_odds = np.array([preference(m) - 1, preference(m) + 1]), utility(m)
        log_p = -np.logaddexp(0.0, -log_odds)  # of both answers together
        return np.array([np.logaddexp(0.0, -p) - log_p, np.logaddexp(0.0, p) - log_p])

    return losses


@pytest.mark.parametrize(
    ("preference", "utility", "end"),
    [
        (lambda m: 0.5 * m, lambda m: -10 - m, 16.0),  # 8 nats spent at 8 exactly, so at the next
        (lambda m: 0.5 * m, lambda m: -10 + 2 * min(m, 4) - (m > 4) * (m - 4), 16.0),  # 12 nats below its peak at 4
        (lambda m: 5 * m - m**2 / 2, lambda m: -10.0, 8.0),  # 12 nats at 4, and 8 nats at 8
        (lambda m: 6 * np.tanh(m), lambda m: -10.0, 4.0),  # at 4 it moves by less than a twentieth
        (lambda m: -6 * np.tanh(m), lambda m: -10.0, 4.0),  # falling is a way as well
        (lambda m: 0.001 * m, lambda m: -10.0, 512.0),  # noise has not moved, so it has not come to rest
    ],
)
def test_where_a_side_ends(preference: Any, utility: Any, end: float) -> None:
    assert end_of_side(curves(preference, utility), 1.0) == end


def test_in_float16_a_strong_change_ends_where_the_model_overflows(tokenizer: Any) -> None:
    """Strengths that the user never chose are no mistake of the user's."""
    model = tiny_model("llama", dtype=torch.float16)
    artifact = noisy(model, "vector", layer=3, scale=300.0)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e-3)  # so that utility is spent slowly
    with pytest.raises(ConfigError, match="not finite in torch.float16"):
        sweep(model, tokenizer, PAIRS, artifact, [512.0], "sum")
    found = sweep_factors(model, tokenizer, PAIRS, artifact, 21)
    assert 0 < found[-1] < 512 and -512 < found[0] < 0
    sweep(model, tokenizer, PAIRS, artifact, found, "sum")  # which holds finite losses only


def test_a_change_too_strong_for_the_smallest_strength_is_said(tokenizer: Any) -> None:
    model = tiny_model("llama", dtype=torch.float16)
    artifact = noisy(model, "vector", layer=3, scale=30000.0)
    artifact.delta.db.mul_(100)
    with pytest.raises(ConfigError, match="at m = -?0.0625 are not finite"):
        sweep_factors(model, tokenizer, PAIRS, artifact, 21)
