"""Models in half precision: float32 trained parameters, losses near those of the exact model, everything still exact
that was exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS, assert_close, encoded_pairs, logits, noisy
from tiny import MAIN, random_delta, tiny_model, token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.attach import attach
from easyedit_split.changes.forms import FORMS, make_delta
from easyedit_split.generation import generate
from easyedit_split.models.sites import Site
from easyedit_split.scoring.scorer import PairScorer
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.sweeps.run import sweep
from easyedit_split.training.trainer import train

HALVES = [torch.bfloat16, torch.float16]
# a rounding of 2^-9 (2^-12) at each of some 40 operations on the way from the site to the loss
SLACK = {torch.bfloat16: 0.03, torch.float16: 0.004}
CONFIG = TrainConfig(n_epochs=2, batch_size=2, lr=0.02, rank=2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", MAIN)
def test_training_keeps_float32_parameters_and_finds_the_same_change(
    tokenizer: Any, kind: str, form: str, dtype: torch.dtype
) -> None:
    model = tiny_model(kind, dtype=dtype)
    artifact = train(model, tokenizer, TEXT_PAIRS, site=Site(1), form=form, config=CONFIG)
    exact = train(tiny_model(kind), tokenizer, TEXT_PAIRS, site=Site(1), form=form, config=CONFIG)
    assert {p.dtype for p in artifact.delta.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {dtype}
    for name, found in artifact.delta.tensors().items():
        expected = exact.delta.tensors()[name]
        assert bool(torch.isfinite(found).all())
        if float(expected.abs().max()) > 0:  # AdamW moves by the sign of small gradients: directions, not digits
            assert float(torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0)) > 0.9


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", MAIN)
def test_gradients_are_those_of_the_exact_model(kind: str, dtype: torch.dtype) -> None:
    """At the same change: the gradient of summed losses, float32, within the model's own rounding."""
    pairs = encoded_pairs(4)

    def gradient(model: Any) -> torch.Tensor:
        delta = random_delta(make_delta("vector", 48, 32)).requires_grad_(True)
        with attach(model, delta, Site(2), 1.5) as handle:
            found = PairScorer(model, pairs, handle).losses(torch.arange(4))
            (found.matching - 0.3 * found.not_matching).sum().backward()
        (grad,) = (p.grad for p in delta.parameters())
        assert grad is not None and grad.dtype == torch.float32
        return grad

    assert_close(gradient(tiny_model(kind, dtype=dtype)), gradient(tiny_model(kind)), 4 * SLACK[dtype])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", MAIN)
def test_sweeps_are_float32_sums_near_the_exact_ones(tokenizer: Any, kind: str, dtype: torch.dtype) -> None:
    tables = []
    for model in (tiny_model(kind, dtype=dtype), tiny_model(kind)):
        tables.append(sweep(model, tokenizer, TEXT_PAIRS, noisy(model), [-1.0, 0.0, 2.0], "sum"))
    for name in ("loss_pos", "loss_neg"):
        np.testing.assert_allclose(getattr(tables[0], name), getattr(tables[1], name), rtol=SLACK[dtype])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_zero_is_the_model_and_undo_is_exact(form: str, dtype: torch.dtype) -> None:
    model = tiny_model("qwen2", dtype=dtype)
    artifact, ids = noisy(model, form), token_batch()
    plain = logits(model, ids)
    with artifact.attach(model, 0.0):
        assert torch.equal(logits(model, ids), plain)
    merged = artifact.merge(model, 2.0)
    assert {p.dtype for p in model.parameters()} == {dtype}
    with_weights = logits(model, ids)
    merged.undo()
    assert torch.equal(logits(model, ids), plain)
    with artifact.attach(model, 2.0):
        steered = logits(model, ids)
    assert not torch.equal(steered, plain)
    # the hook rounds the sum once, the merged weights are rounded themselves
    assert_close(with_weights.float(), steered.float(), 4 * SLACK[dtype])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_generation_saving_and_loading_in_half_precision(tokenizer: Any, tmp_path: Any, dtype: torch.dtype) -> None:
    model = tiny_model("llama", dtype=dtype)
    artifact = noisy(model, "lora")
    artifact.save(tmp_path)
    again = SteeringArtifact.load(tmp_path)
    for name, tensor in artifact.delta.tensors().items():
        assert again.delta.tensors()[name].dtype == torch.float32
        assert torch.equal(again.delta.tensors()[name], tensor)
    texts = []
    for change in (artifact, again):
        with change.attach(model, 1.0):
            texts.append(generate(model, tokenizer, ["a", "bc"], max_new_tokens=4))
    assert texts[0] == texts[1]
