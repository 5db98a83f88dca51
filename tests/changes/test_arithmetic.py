"""Combining: sums are what two attachments do; angles and promoted tokens are what the definition says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from laws import assert_close, logits, noisy
from tiny import ARCHITECTURES, tiny_tokenizer, token_batch

from easyedit_split.changes.arithmetic import cosine, projection
from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import FORMS, from_tensors
from easyedit_split.changes.positions import Positions
from easyedit_split.errors import ConfigError, SiteError
from easyedit_split.models.identity import describe_model
from easyedit_split.models.sites import Site
from easyedit_split.scoring.promoted_tokens import promoted_tokens

IDS = token_batch()


def vector(*values: float) -> SteeringArtifact:
    return SteeringArtifact(from_tensors("vector", {"db": torch.tensor(values)}), Site(1, "residual"))


@pytest.mark.parametrize("form", FORMS)
def test_scaling_is_a_change_of_strength(lend: Any, form: str) -> None:
    model = lend("qwen2")
    artifact = noisy(model, form)
    with artifact.attach(model, -3.0):
        expected = logits(model, IDS)
    with artifact.scaled(-2.0).attach(model, 1.5):
        assert_close(logits(model, IDS), expected)
    assert artifact.scaled(-2.0).scaled(0.5).origin["scaled"] == -1.0


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_the_sum_is_both_attached(lend: Any, first: str, second: str) -> None:
    model = lend("qwen2")
    a, b = noisy(model, first, seed=1), noisy(model, second, seed=2)
    with a.attach(model, 1.0), b.attach(model, 0.5):
        expected = logits(model, IDS)
    total = a + b.scaled(0.5)
    assert total.form == (first if first == second else "local_weight")
    with total.attach(model, 1.0):
        assert_close(logits(model, IDS), expected)


def test_sums_of_vectors_and_weights_are_exact(lend: Any) -> None:
    model = lend("qwen2")
    for form in ("vector", "local_weight"):
        a, b = noisy(model, form, seed=1), noisy(model, form, seed=2)
        for name, value in (a + b).delta.tensors().items():
            assert torch.equal(value, a.delta.tensors()[name] + b.delta.tensors()[name])


def test_ranks_add_up_until_the_map_is_full(lend: Any) -> None:
    """The map is 32 x 48: 11 changes of rank 3 would have rank 33, and are factorised to 32."""
    model = lend("qwen2")
    parts = [noisy(model, "lora", seed=s) for s in range(11)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert len((parts[0] + parts[1]).delta.tensors()["A"]) == 6
    assert len(total.delta.tensors()["A"]) == 32
    expected = torch.stack([p.delta.weight() for p in parts]).sum(0)
    assert_close(total.delta.weight(), expected)


def test_what_is_kept_of_the_origin() -> None:
    a, b = vector(1.0, 0.0), vector(0.0, 1.0)
    for artifact, chat in ((a, True), (b, True)):
        artifact.origin.update({"chat": chat, "system_prompt": "s"})
    assert (a + b).origin == {"sum": [a.origin, b.origin], "chat": True, "system_prompt": "s"}
    b.origin["chat"] = False
    assert "chat" not in (a + b).origin


def test_different_places_do_not_add(lend: Any) -> None:
    model, other = lend("qwen2"), lend("llama")
    a = noisy(model, "lora")
    with pytest.raises(ConfigError, match="not the same site"):
        a + noisy(model, "lora", layer=2)
    with pytest.raises(ConfigError, match="not the same positions"):
        a + noisy(model, "lora", positions=Positions("answer"))
    with pytest.raises(ConfigError, match="not the same model"):
        a + noisy(other, "lora")
    with pytest.raises(ConfigError, match="not the same output width"):
        vector(1.0) + vector(1.0, 2.0)
    with pytest.raises(TypeError):
        a + 1  # type: ignore[operator]


def test_factors_are_checked() -> None:
    for factor in (float("nan"), float("inf"), 1e39):
        with pytest.raises(ConfigError, match="finite"):
            vector(1.0, 2.0).scaled(factor)


def test_cosine_and_projection_by_hand() -> None:
    """(3, 4) and (1, 0): cosine 3/5; (3, 4) is 3 times (1, 0) plus (0, 4)."""
    assert cosine(vector(3.0, 4.0), vector(1.0, 0.0)) == pytest.approx(0.6)
    assert projection(vector(3.0, 4.0), vector(1.0, 0.0)) == pytest.approx(3.0)
    assert cosine(vector(1.0, 0.0), vector(0.0, 5.0)) == 0.0
    assert cosine(vector(1.0, 2.0), vector(-2.0, -4.0)) == pytest.approx(-1.0)
    for function in (cosine, projection):
        with pytest.raises(ConfigError, match="no direction"):
            function(vector(1.0, 0.0), vector(0.0, 0.0))


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_cosine_is_that_of_the_flat_change(lend: Any, first: str, second: str) -> None:
    a, b = (noisy(lend("qwen2"), form, seed=s) for form, s in ((first, 1), (second, 2)))
    flat = [_flat(x) for x in (a, b)]
    expected = torch.nn.functional.cosine_similarity(*flat, dim=0)
    assert cosine(a, b) == pytest.approx(float(expected), rel=1e-5, abs=1e-12)
    c = projection(a, b)
    assert float((flat[0] - c * flat[1]) @ flat[1]) == pytest.approx(0.0, abs=1e-6)


def _flat(artifact: SteeringArtifact) -> torch.Tensor:
    weight, bias = artifact.delta.weight(), artifact.delta.bias_term()
    parts = [
        torch.zeros(32 * 48) if weight is None else weight.flatten(),
        torch.zeros(32) if bias is None else bias,
    ]
    return torch.cat(parts).double()


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("component", ["mlp.down_proj", "self_attn.o_proj", "residual"])
def test_promoted_tokens_are_those_of_a_state_that_is_the_vector(lend: Any, kind: str, component: str) -> None:
    """By brute force: a steering so strong that the residual stream is the vector and nothing else.

    With the vector in the last block, the last state tends to its direction; so do the logits, but for the start.
    """
    model = lend(kind)
    artifact = noisy(model, "vector", component, layer=3)
    found = promoted_tokens(model, tiny_tokenizer(), artifact, count=260)
    scores = torch.empty(260)
    for token in found:
        scores[token.token_id] = token.score
    if component == "residual" or (component == "mlp.down_proj" and kind not in ("gemma2", "gemma3_text")):
        cap, model.config.final_logit_softcapping = getattr(model.config, "final_logit_softcapping", None), None
        try:
            with artifact.attach(model, 1e7):
                strong = logits(model, IDS)[0, -1]
        finally:
            model.config.final_logit_softcapping = cap
        difference = (strong - scores) - (strong - scores).mean()
        bias = _constant_part(model)
        assert_close(difference - (bias - bias.mean()) + scores, scores, 1e-4)
    assert [t.score for t in found] == sorted((t.score for t in found), reverse=True)


def _constant_part(model: Any) -> torch.Tensor:
    """Logits of a zero state: the last norm's bias, where it has one."""
    from easyedit_split.models.parts import final_norm

    with torch.no_grad():
        return model.get_output_embeddings()(final_norm(model)(torch.zeros(1, 32)))[0]


def test_a_vector_along_a_token_promotes_that_token(lend: Any) -> None:
    """The row of the unembedding divided by the norm's gain gives that token the highest score of its own length."""
    model = lend("llama")
    rows = model.lm_head.weight.detach()
    unit = rows / rows.norm(dim=1, keepdim=True)
    token = int((unit @ unit.T).fill_diagonal_(0).abs().max(dim=1).values.argmin())
    artifact = vector(*(rows[token] / model.model.norm.weight.detach()).tolist())
    best = promoted_tokens(model, tiny_tokenizer(), artifact, count=1)[0]
    against = promoted_tokens(model, tiny_tokenizer(), artifact, count=1, sign=-1.0)[0]
    assert best.token_id == token
    assert against.token_id != token
    assert best.text == tiny_tokenizer().decode([token])


def test_what_promotes_nothing_is_said(lend: Any) -> None:
    model = lend("qwen2")
    with pytest.raises(ConfigError, match="no db"):
        promoted_tokens(model, tiny_tokenizer(), noisy(model, "lora"))
    with pytest.raises(SiteError, match="does not write into the residual stream"):
        promoted_tokens(model, tiny_tokenizer(), noisy(model, "vector", "mlp.up_proj"))
    assert describe_model(model)["architecture"] == "qwen2"
