"""`diff_mean` against hidden states taken one answer at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from laws import TEXT_PAIRS, assert_close
from tiny import ARCHITECTURES, tiny_model

from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import DataError, SiteError
from easyedit_split.training.diff_mean import diff_mean


@torch.no_grad()
def _by_hand(model: Any, tokenizer: Any, layer: int) -> torch.Tensor:
    """Mean over pairs of (mean state over the matching answer's tokens minus the same of the other answer)."""
    differences = []
    for pair in Encoder(tokenizer).pairs(TEXT_PAIRS):
        means = []
        for answer in (pair.matching, pair.not_matching):
            ids = torch.tensor([[*pair.prompt, *answer]])
            states: list[torch.Tensor] = []
            hook = (
                model.get_decoder()
                .get_submodule(_block(model, layer))
                .register_forward_hook(
                    lambda m, a, out, states=states: states.append(out[0] if isinstance(out, tuple) else out)
                )
            )
            model(input_ids=ids)
            hook.remove()
            means.append(states[0][0, len(pair.prompt) :].mean(dim=0))
        differences.append(means[0] - means[1])
    return torch.stack(differences).mean(dim=0)


def _block(model: Any, layer: int) -> str:
    return f"h.{layer}" if model.config.model_type == "gpt2" else f"layers.{layer}"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_diff_mean_by_hand(lend: Any, tokenizer: Any, kind: str) -> None:
    model = lend(kind)
    for layer in (0, 3):
        expected = _by_hand(model, tokenizer, layer)
        for batch_size in (2, 16):
            artifact = diff_mean(model, tokenizer, TEXT_PAIRS, layer=layer, batch_size=batch_size)
            assert_close(artifact.delta.tensors()["db"], expected)
    assert (artifact.form, str(artifact.site)) == ("vector", "layer 3, residual")
    assert artifact.origin["objective"] == {"name": "diff_mean"}


def test_swapped_answers_give_the_opposite_direction(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    one = diff_mean(model, tokenizer, TEXT_PAIRS, layer=2).delta.tensors()["db"]
    other = diff_mean(model, tokenizer, [p.swapped() for p in TEXT_PAIRS], layer=2).delta.tensors()["db"]
    assert_close(other, -one)


def test_a_pair_as_long_as_the_context_still_fits(lend: Any, tokenizer: Any) -> None:
    """The answer's own last token is an input here, one more than in scoring."""
    model = lend("gpt2")
    room = 256 - len(Encoder(tokenizer).prompt("")) - 1
    exact = PreferencePair("", "x" * room, "no")
    assert bool(torch.isfinite(diff_mean(model, tokenizer, [exact], layer=1).delta.tensors()["db"]).all())
    with pytest.raises(DataError, match="pair 0 has 257 tokens but the model's context is 256"):
        diff_mean(model, tokenizer, [PreferencePair("", "x" * (room + 1), "no")], layer=1)


def test_the_model_is_left_as_found(tokenizer: Any) -> None:
    model = tiny_model("gpt2").train().requires_grad_(True)
    first = diff_mean(model, tokenizer, TEXT_PAIRS, layer=1)
    again = diff_mean(model.eval(), tokenizer, TEXT_PAIRS, layer=1)
    assert torch.equal(first.delta.tensors()["db"], again.delta.tensors()["db"])
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(SiteError, match="layer 9 is out of range"):
        diff_mean(model, tokenizer, TEXT_PAIRS, layer=9)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def _passes(model: Any, work: Any) -> int:
    """How often the first block runs on all pairs at once; probes have fewer rows."""
    rows: list[int] = []
    block = model.get_decoder().get_submodule(_block(model, 0))
    hook = block.register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    work()
    hook.remove()
    return rows.count(len(TEXT_PAIRS))


def test_all_layers_take_one_pass(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    alone = [diff_mean(model, tokenizer, TEXT_PAIRS, layer=i).delta.tensors()["db"] for i in range(4)]
    together = diff_mean(model, tokenizer, TEXT_PAIRS, layer=range(4))
    for part, expected in zip(together.parts, alone, strict=True):
        assert_close(part.delta.tensors()["db"], expected)
    assert _passes(model, lambda: diff_mean(model, tokenizer, TEXT_PAIRS, layer=range(4))) == 1
