"""A model's losses are its own, on architectures this package does not list too; or it is refused."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from families import family_model
from laws import assert_close, encoded_pairs, noisy
from tiny import ARCHITECTURES, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from easyedit_split.errors import SiteError
from easyedit_split.models.architectures import logits_scale
from easyedit_split.models.parts import context_length
from easyedit_split.scoring.probe import rows_can_be_shared, states_can_be_kept
from easyedit_split.scoring.scorer import PairScorer
from easyedit_split.scoring.token_losses import token_losses

RECURRENT = ("lfm2_moe", "recurrent_gemma", "qwen3_5_text")
SCALED = ("granite", "cohere", "minicpm3", "hyperclovax", "falcon_h1")
LIMIT = 24  # positions beyond which these rotate otherwise; the pairs' answers end on both sides of it
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0, 3.0, 2.0, 1.5],
    "original_max_position_embeddings": LIMIT,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
ROTATED_BY_LENGTH: dict[str, dict[str, Any]] = {
    "phi3": {"rope_parameters": LONGROPE, "original_max_position_embeddings": LIMIT},
    "llama": {"rope_parameters": DYNAMIC, "max_position_embeddings": LIMIT},
}
# the recurrent layers' own kernels round by 1e-5
TOLERANCE = 1e-4


@torch.no_grad()
def _own_loss(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
    """By the model's own logits, in a call of its own that remembers none before."""
    model(input_ids=torch.tensor([[0]]), use_cache=False)
    logits = model(input_ids=torch.tensor([[*prompt, *answer[:-1]]]), use_cache=False).logits[0]
    return F.cross_entropy(logits[len(prompt) - 1 :].float(), torch.tensor(answer), reduction="sum")


def _check(model: Any, packed: bool, tolerance: float = TOLERANCE) -> None:
    pairs = encoded_pairs()
    with torch.no_grad():
        scorer = PairScorer(model, pairs)
        found = scorer.losses(torch.arange(len(pairs)))
    assert scorer.packed is packed
    assert_close(found.matching, torch.stack([_own_loss(model, p.prompt, p.matching) for p in pairs]), tolerance)
    own = torch.stack([_own_loss(model, p.prompt, p.not_matching) for p in pairs])
    assert_close(found.not_matching, own, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_supported_architectures_share_rows(kind: str, dtype: torch.dtype) -> None:
    assert rows_can_be_shared(tiny_model(kind, dtype=dtype))


@pytest.mark.parametrize("kind", RECURRENT)
def test_where_tokens_do_not_meet_in_attention_alone_answers_have_rows_of_their_own(kind: str) -> None:
    _check(family_model(kind), packed=False)


def test_where_a_window_counts_columns_answers_have_rows_of_their_own() -> None:
    """GPT-Neo's window is of 16 columns here: longer than the probe's rows, shorter than the longest pair."""
    _check(family_model("gpt_neo"), packed=False)


@pytest.mark.parametrize("kind", ["smollm3", "mellum"])
def test_a_window_that_no_block_uses_is_not_applied(kind: str) -> None:
    model = family_model(kind)
    assert model.config.sliding_window == 16 and set(model.config.layer_types) == {"full_attention"}
    _check(model, packed=True)


@pytest.mark.parametrize("kind", ROTATED_BY_LENGTH)
@pytest.mark.parametrize("steered", [False, True])
def test_a_pair_is_rotated_as_it_is_alone_whatever_is_scored_beside_it(kind: str, steered: bool) -> None:
    model, pairs = family_model(kind, **ROTATED_BY_LENGTH[kind]), encoded_pairs()
    lengths = {len(p.prompt) + len(answer) for p in pairs for answer in (p.matching, p.not_matching)}
    assert min(lengths) < LIMIT < max(lengths)
    if not steered:
        return _check(model, packed=False)
    with noisy(model).attach(model, 2.0) as handle, torch.no_grad():
        scorer = PairScorer(model, pairs, handle)
        found = scorer.losses(torch.arange(len(pairs))).not_matching
        assert scorer.store is not None
        assert_close(found, torch.stack([_own_loss(model, p.prompt, p.not_matching) for p in pairs]))


@pytest.mark.parametrize("kind", ROTATED_BY_LENGTH)
def test_pairs_below_the_switch_share_rows(kind: str) -> None:
    model = family_model(kind, **ROTATED_BY_LENGTH[kind])
    pair = encoded_pairs()[0]
    assert rows_can_be_shared(model, [pair]) and len(pair) < LIMIT
    assert not rows_can_be_shared(model, encoded_pairs())


@pytest.mark.parametrize("kind", SCALED)
def test_logits_that_are_scaled_by_one_number(kind: str) -> None:
    model = family_model(kind)
    assert logits_scale(model.config) != 1
    _check(model, packed=kind != "falcon_h1")


def test_logits_that_are_made_otherwise_are_refused() -> None:
    with pytest.raises(SiteError, match="does more to its logits"):
        PairScorer(family_model("modernbert-decoder"), encoded_pairs())


@pytest.mark.parametrize("kind", ["gemma3n_text", "deepseek_v4", "bamba"])
def test_where_blocks_pass_on_more_than_a_state_nothing_is_kept(kind: str) -> None:
    assert not states_can_be_kept(family_model(kind), 1, packed=False)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")  # PEFT asks transformers by the old name
@pytest.mark.parametrize("kind", [peft.PrefixTuningConfig, peft.PromptTuningConfig])
def test_tuned_prompts_are_refused(kind: Any) -> None:
    model = peft.get_peft_model(tiny_model("qwen2"), kind(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    with torch.no_grad():
        for parameter in model.prompt_encoder.parameters():
            parameter.normal_()
    with pytest.raises(SiteError, match="without prompt tuning"):
        PairScorer(model, encoded_pairs())


def test_a_change_attached_already_is_no_part_of_the_probe() -> None:
    model = tiny_model("qwen2")
    with noisy(model, positions="answer").attach(model, 5.0):
        assert rows_can_be_shared(model)


def test_the_text_part_of_a_multimodal_model_has_its_own_window() -> None:
    text = {name: value for name, value in family_model("gemma3_text").config.to_dict().items() if value is not None}
    text = {**text, "sliding_window": 8}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    assert max(len(pair) for pair in encoded_pairs()) > 2 * 8
    _check(model, packed=True)
    assert context_length(model) == 256


def test_head_in_float16_overflows_no_earlier_than_torchs_own() -> None:
    """A vocabulary so large and a column so far from 0 that the sum over it is above 65504."""
    model = tiny_model("llama", dtype=torch.float16)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(131072, 32, generator=generator) * 0.02
    weight[:, 0] += 1.0
    model.lm_head = torch.nn.Linear(32, len(weight), bias=False).half().requires_grad_(False)
    with torch.no_grad():
        model.lm_head.weight.copy_(weight)
    hidden = (torch.randn(3, 32, generator=generator) * 0.3).half().requires_grad_(True)
    targets = torch.tensor([1, 2, 3])
    token_losses(model, hidden, targets).sum().backward()
    found, hidden.grad = hidden.grad, None
    F.cross_entropy(model.lm_head(hidden).float(), targets, reduction="sum").backward()
    assert_close(found, hidden.grad, 5e-3)  # float16 has 11 bits
