"""A refined sweep measures the strength that its advice names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from laws import TEXT_PAIRS, noisy

from easyedit_split.analysis.pipeline import analyse, strength_past_the_end, strength_to_measure
from easyedit_split.errors import ConfigError
from easyedit_split.sweeps.refine import refine, set_out
from easyedit_split.sweeps.run import sweep


def test_the_advised_strength_is_measured_within_the_budget(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    for seed in range(20):  # to a change whose strength of highest preference costs something
        artifact = noisy(model, layer=2, seed=seed)
        coarse = sweep(model, tokenizer, TEXT_PAIRS, artifact, np.linspace(-40, 40, 9), "sum")
        points = analyse(coarse, n_boot=2).measured
        budget = float(points.spent[points.preference.argmax()]) / 2
        if budget > 0.2:
            break
    assert budget > 0.2
    found = refine(model, tokenizer, TEXT_PAIRS, artifact, coarse, budget)
    new = np.setdiff1d(found.factors, coarse.factors)
    assert 1 <= len(new) <= 8 and (np.diff(found.factors) > 0).all()
    assert strength_to_measure(found, budget) is None
    # every strength is what a sweep of it alone gives, and the old ones are as they were
    again = sweep(model, tokenizer, TEXT_PAIRS, artifact, found.factors, "sum")
    np.testing.assert_allclose(found.loss_pos, again.loss_pos, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.loss_neg[np.isin(found.factors, coarse.factors)], coarse.loss_neg)
    assert found.reduction == "sum"
    assert found.header == {**coarse.header, **set_out(coarse.factors, budget)}
    assert found.settings_id != coarse.settings_id  # it knows with which strengths it set out, and why it went on
    assert found.settings_id == replace(coarse, header=found.header).settings_id


def test_a_sweep_that_ends_too_soon_goes_further(lend: Any, tokenizer: Any) -> None:
    model, budget = lend("qwen2"), 5.0
    artifact = noisy(model, layer=2, seed=1)
    short = sweep(model, tokenizer, TEXT_PAIRS, artifact, np.linspace(-0.3, 0.3, 7), "sum")
    assert strength_past_the_end(short, budget) == 0.45
    found = refine(model, tokenizer, TEXT_PAIRS, artifact, short, budget)
    assert 0.45 in found.factors and 0.675 in found.factors
    assert np.abs(found.factors).max() <= 4 * 0.3


def test_sweeps_of_other_pairs_or_reductions_are_not_joined(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    table = sweep(model, tokenizer, TEXT_PAIRS, noisy(model, layer=2), [0.0, 1.0], "sum")
    with pytest.raises(ConfigError, match="reduce one first"):
        table.joined(table.reduced("mean"))
    with pytest.raises(ConfigError, match="other pairs"):
        table.joined(replace(table, tokens_pos=table.tokens_pos + 1))
