"""Laws 2, 3, 5, 8 and 9: a hooked change is the merged change, leaves no trace, and stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from laws import FORMS_AND_COMPONENTS, assert_close, logits, noisy
from tiny import ARCHITECTURES, MAIN, tiny_model, token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.attach import attach
from easyedit_split.errors import ConfigError, NotMergeableError, SiteError
from easyedit_split.models.parts import has_norm_after_mlp
from easyedit_split.models.sites import Site

BEHIND_A_NORM = ("gemma2", "gemma3_text")


def _fits(kind: str, component: str) -> bool:
    return component != "residual" or kind not in BEHIND_A_NORM


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize(("form", "component"), FORMS_AND_COMPONENTS)
def test_hooked_is_merged_is_reloaded(lend: Any, tmp_path: Path, kind: str, form: str, component: str) -> None:
    """Law 2; the change must also matter, or the law would say nothing."""
    model, ids = lend(kind), token_batch()
    artifact = noisy(model, form, component)
    plain = logits(model, ids)
    with artifact.attach(model, 1.5):
        hooked = logits(model, ids)
    assert (hooked - plain).abs().max() > 1e-3 * plain.abs().max()
    artifact.save(tmp_path)
    with SteeringArtifact.load(tmp_path).attach(model, 1.5):
        assert torch.equal(logits(model, ids), hooked)
    if not _fits(kind, component):
        with pytest.raises(NotMergeableError, match="behind a norm"):
            artifact.merge(model, 1.5)
        return
    merged = artifact.merge(model, 1.5)
    assert_close(logits(model, ids), hooked)
    merged.undo()
    assert torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("kind", MAIN)
def test_m1_and_m2_are_two_dials(lend: Any, kind: str) -> None:
    """`(W + m1 dW) h + (b + m2 db)`: merged with the same two numbers, and with one of them left out."""
    model, ids = lend(kind), token_batch()
    artifact = noisy(model)
    for strength in ({"m1": -2.0, "m2": 0.7}, {"m1": 1.3}, {"m2": 1.3}):
        with artifact.attach(model, **strength):
            hooked = logits(model, ids)
        merged = artifact.merge(model, **strength)
        assert_close(logits(model, ids), hooked)
        merged.undo()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_m_zero_is_the_plain_model_bit_for_bit(lend: Any, kind: str) -> None:
    model, ids = lend(kind), token_batch()
    plain = logits(model, ids)
    for form, component in FORMS_AND_COMPONENTS:
        with noisy(model, form, component).attach(model, 0.0) as handle:
            assert torch.equal(logits(model, ids), plain)
            handle.set_strength(torch.zeros(3))
            assert torch.equal(logits(model, ids), plain)
            handle.set_strength(m1=0.0, m2=0)
            assert torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("kind", MAIN)
def test_remove_restores_bit_for_bit_and_may_be_repeated(lend: Any, kind: str) -> None:
    model, ids = lend(kind), token_batch()
    plain = logits(model, ids)
    handle = noisy(model).attach(model, 3.0)
    assert not torch.equal(logits(model, ids), plain)
    handle.remove()
    handle.remove()
    assert torch.equal(logits(model, ids), plain)


def test_an_exception_inside_the_with_removes_the_hooks(lend: Any) -> None:
    model = lend("qwen2")
    with pytest.raises(RuntimeError, match="inside"), noisy(model).attach(model, 3.0):
        raise RuntimeError("inside")


def test_an_exception_inside_the_forward_leaves_nothing_behind(lend: Any) -> None:
    model, ids = lend("gpt2"), token_batch()
    plain = logits(model, ids)
    bad = noisy(model).attach(model, torch.ones(2))
    with bad, pytest.raises(ConfigError, match="2 strengths for a batch of 3 rows"):
        logits(model, ids)
    assert torch.equal(logits(model, ids), plain)


def test_a_change_that_does_not_fit_leaves_no_hook(lend: Any) -> None:
    model = lend("qwen2")
    wide = noisy(model, "local_weight", "mlp.up_proj").delta
    with pytest.raises(SiteError, match="the change is 48 x 32 but layer 1, mlp.down_proj of this model is 32 x 48"):
        attach(model, wide, Site(1), 1.0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize(("form", "component"), FORMS_AND_COMPONENTS[:4])
def test_one_strength_a_row_is_separate_runs(lend: Any, kind: str, form: str, component: str) -> None:
    """Law 5, for m and for m1 and m2 apart."""
    model, ids = lend(kind), token_batch()
    artifact = noisy(model, form, component)
    m1, m2 = torch.tensor([-2.0, 0.0, 4.0]), torch.tensor([1.0, 0.5, 0.0])
    with artifact.attach(model, m1) as handle:
        together = logits(model, ids)
        handle.set_strength(m1=m1, m2=m2)
        apart = logits(model, ids)
        for row in range(3):
            one = ids[row : row + 1]
            handle.set_strength(float(m1[row]))
            assert_close(together[row : row + 1], logits(model, one))
            handle.set_strength(m1=m1[row], m2=float(m2[row]))
            assert_close(apart[row : row + 1], logits(model, one))


@pytest.mark.parametrize("kind", MAIN)
def test_attachments_stack_in_either_order(lend: Any, kind: str) -> None:
    """Law 8: at one module, at two, and with different position rules; and removing one leaves the other."""
    model, ids = lend(kind), token_batch()
    first = noisy(model, "local_weight")
    alone = None
    for second in (
        noisy(model, "lora", seed=7),
        noisy(model, "vector", "residual", seed=8),
        noisy(model, "vector", layer=2, seed=9),
        noisy(model, "vector", positions="answer", seed=10),
    ):
        with first.attach(model, 1.2), second.attach(model, -0.8):
            one = logits(model, ids)
        with second.attach(model, -0.8), first.attach(model, 1.2):
            assert_close(logits(model, ids), one)
        outer = second.attach(model, -0.8)
        with first.attach(model, 1.2):
            outer.remove()
            now = logits(model, ids)
        alone = now if alone is None else alone
        assert torch.equal(now, alone)


@pytest.mark.parametrize("kind", MAIN)
def test_two_halves_attached_are_one_whole(lend: Any, kind: str) -> None:
    model, ids = lend(kind), token_batch()
    artifact = noisy(model)
    with artifact.attach(model, 0.5), artifact.attach(model, 0.5):
        halves = logits(model, ids)
    with artifact.attach(model, 1.0):
        assert_close(halves, logits(model, ids))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_db_merges_into_a_bias_or_adds_one_and_undo_takes_it_away(lend: Any, kind: str) -> None:
    """Law 9, in memory."""
    model = lend(kind)
    artifact = noisy(model, "vector")
    module = artifact.resolve(model).module
    had = module.bias is not None
    old = module.bias.clone() if had else torch.zeros(32)
    merged = artifact.merge(model, 2.0)
    assert merged.added_bias is not had
    assert_close(module.bias, old + 2.0 * artifact.delta.bias_term())
    merged.undo()
    merged.undo()
    assert (module.bias is not None) == had
    assert "bias" not in dict(module.named_parameters()) or had


def test_merges_undo_in_order_only(lend: Any) -> None:
    model = lend("llama")
    first, second = noisy(model, seed=1).merge(model, 1.0), noisy(model, seed=2).merge(model, 1.0)
    with pytest.raises(NotMergeableError, match="changed after this merge: undo the later change first"):
        first.undo()
    second.undo()
    first.undo()


def test_a_merge_of_m_zero_touches_nothing(lend: Any) -> None:
    model = lend("llama")
    merged = noisy(model).merge(model, 0.0)
    assert not merged.after and not merged.added_bias
    merged.undo()


@pytest.mark.parametrize("rule", ["answer", "after_prefix"])
def test_a_change_of_some_positions_cannot_be_merged(lend: Any, rule: str) -> None:
    model = lend("qwen2")
    with pytest.raises(NotMergeableError, match=f"positions '{rule}' only, and weights act on every token"):
        noisy(model, positions=rule).merge(model, 1.0)


def test_a_merge_takes_one_number_that_must_fit_the_dtype(lend: Any) -> None:
    model = lend("qwen2")
    with pytest.raises(ConfigError, match="merging takes one number"):
        noisy(model).merge(model, torch.ones(3))
    half = tiny_model("qwen2", dtype=torch.float16)
    before = half.model.layers[1].mlp.down_proj.weight.clone()
    with pytest.raises(NotMergeableError, match="overflows torch.float16"):
        noisy(half).merge(half, 1e7)
    assert torch.equal(half.model.layers[1].mlp.down_proj.weight, before)


def _block_output_vector(model: Any, ids: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Logits with `vector` added to the output of block 1 by a hook written here."""
    hook = (
        model.get_decoder()
        .layers[1]
        .register_forward_hook(
            lambda m, a, out: (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector
        )
    )
    found = logits(model, ids)
    hook.remove()
    return found


def test_on_gemma2_the_linear_layer_is_not_the_block_output(lend: Any) -> None:
    """The norm after the feed-forward stands between: attaching at the output would be another change."""
    model, ids = lend("gemma2"), token_batch()
    artifact = noisy(model, "vector")
    assert has_norm_after_mlp(model.model.layers[1])
    with artifact.attach(model, 1.0):
        hooked = logits(model, ids)
    other = _block_output_vector(model, ids, artifact.delta.bias_term())
    plain = logits(model, ids)
    assert (hooked - other).abs().max() > 0.1 * (hooked - plain).abs().max()


def test_on_qwen2_they_agree_and_residual_is_the_block_output(lend: Any) -> None:
    model, ids = lend("qwen2"), token_batch()
    at_linear, at_output = noisy(model, "vector"), noisy(model, "vector", "residual")
    other = _block_output_vector(model, ids, at_linear.delta.bias_term())
    for artifact in (at_linear, at_output):
        with artifact.attach(model, 1.0):
            assert_close(logits(model, ids), other)


@pytest.mark.parametrize("form", ["lora", "local_weight"])
def test_a_form_with_weights_does_not_fit_the_residual_stream(lend: Any, form: str) -> None:
    from easyedit_split.changes.forms import make_delta

    with pytest.raises(SiteError, match=f"form '{form}' needs a linear map, and the residual stream has none"):
        attach(lend("qwen2"), make_delta(form, 32, 32), Site(1, "residual"), 1.0)


@pytest.mark.parametrize("kind", MAIN)
def test_a_bfloat16_model_hooked_is_near_the_merged_one(kind: str) -> None:
    """bfloat16 keeps 8 bits and four blocks round after every map: a few per cent, not another function."""
    model, ids = tiny_model(kind, dtype=torch.bfloat16), token_batch()
    plain = logits(model, ids)
    for form in ("vector", "lora", "local_weight"):
        artifact = noisy(model, form)
        assert {p.dtype for p in artifact.delta.parameters()} == {torch.float32}
        with artifact.attach(model, 1.5) as handle:
            hooked = logits(model, ids)
            handle.set_strength(torch.full((3,), 1.5))
            by_row = logits(model, ids)
        assert hooked.dtype == torch.bfloat16
        assert_close(by_row, hooked, 2**-5)
        merged = artifact.merge(model, 1.5)
        assert_close(logits(model, ids), hooked, 2**-4)
        merged.undo()
        assert torch.equal(logits(model, ids), plain)


def test_strengths_are_checked() -> None:
    from easyedit_split.changes.attach import Strength

    for bad, message in (
        ({}, "no strength given"),
        ({"m": 1.0, "m1": 2.0}, "both m and m1 or m2 given"),
        ({"m": float("nan")}, "not finite"),
        ({"m": torch.tensor([1.0, float("inf")])}, "not finite"),
        ({"m2": torch.ones(2, 2)}, r"m2 has shape \(2, 2\)"),
        ({"m": "strong"}, "strength m1 = 'strong'"),
        ({"m": [1.0, "x"]}, "strength m1 = "),
    ):
        with pytest.raises(ConfigError, match=message):
            Strength(**bad)
    assert Strength(torch.tensor(2.0)).m1 == 2.0
    assert Strength([1.0, 2.0]).m2.tolist() == [1.0, 2.0]
