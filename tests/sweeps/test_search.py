"""A sweep that finds its own strengths: as far as the curves go, and dense where they bend."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from laws import TEXT_PAIRS, noisy

from easyedit_split.analysis.pipeline import least_known_strength, strength_to_measure
from easyedit_split.errors import ConfigError
from easyedit_split.sweeps.factors import sweep_factors
from easyedit_split.sweeps.run import sweep
from easyedit_split.sweeps.search import FIRST, LEAST, search, searched


def table(m: np.ndarray, preference: Any, utility: Any) -> Any:
    """Three pairs whose mean curves these are."""
    p, u = (np.array([f(x) + np.array([-1.0, 0.0, 1.0]) for x in m]) for f in (preference, utility))
    log_p = -np.logaddexp(0.0, -u)
    return SimpleNamespace(
        factors=m, loss_pos=np.logaddexp(0.0, -p) - log_p, loss_neg=np.logaddexp(0.0, p) - log_p, reduction="sum",
        header={},
    )  # fmt: skip


def test_the_next_strength_lies_where_a_curve_bends() -> None:
    m = np.linspace(-8, 8, 9)
    bent = table(m, lambda x: 0.5 * x, lambda x: -10 - 2.5 * (x > 5))  # a step between 4 and 6
    assert least_known_strength(bent, 1.0) == 5.0
    straight = table(m, lambda x: 0.5 * x, lambda x: -10.0 - 0.1 * abs(x))
    assert least_known_strength(straight, 1.0) in (-1.0, 1.0)  # the kink at 0 is all there is


def test_strengths_that_cost_far_more_than_the_budget_are_left_coarse() -> None:
    m = np.linspace(-8, 8, 9)
    found = least_known_strength(table(m, lambda x: x, lambda x: -10 - (x - 2) ** 2 * (x > 2)), 1.0)
    assert found is not None and 0 < found < 6  # the steepest bend is at 8, 36 nats down


def test_a_real_change_is_swept_where_its_curves_ask(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    artifact = noisy(model, layer=2, seed=3)
    found = search(model, tokenizer, TEXT_PAIRS, artifact, 21, "sum", 0.5)
    first = sweep_factors(model, tokenizer, TEXT_PAIRS, artifact, FIRST)
    assert set(first) <= set(found.factors) and FIRST < len(found.factors) <= 21
    assert (np.diff(found.factors) > 0).all()
    assert len(found.factors) == 21 or strength_to_measure(found, 0.5) is None
    again = sweep(model, tokenizer, TEXT_PAIRS, artifact, found.factors, "sum")
    np.testing.assert_allclose(found.loss_pos, again.loss_pos, rtol=1e-4, atol=1e-4)
    assert found.header == {**again.header, **searched(21, 0.5)}


def test_too_few_strengths_are_refused(lend: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=f"give {LEAST} or more"):
        search(lend("qwen2"), tokenizer, TEXT_PAIRS, noisy(lend("qwen2"), layer=2), LEAST - 1)
