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
from easyedit_split.sweeps.factors import PROBES, sweep_factors
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
def test_each_side_ends_at_the_first_power_of_two_past_eight_nats(
    lend: Any, tokenizer: Any, kind: str, scale: float
) -> None:
    """By a sweep of all of them at once."""
    model = lend(kind)
    artifact = noisy(model, "vector", layer=2, scale=scale)
    found = sweep_factors(model, tokenizer, PAIRS, artifact, 21)
    for sign, end in ((-1.0, found[0]), (1.0, found[-1])):
        table = sweep(model, tokenizer, PAIRS, artifact, [0.0, *(sign * m for m in PROBES)], "sum")
        spent = (table.utility()[0] - table.utility()[1:]).mean(axis=1)
        assert end == sign * next((m for m, s in zip(PROBES, spent, strict=True) if s > 8), PROBES[-1])


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
