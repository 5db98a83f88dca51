"""A model's losses are its own, on architectures this package does not list too; or it is refused."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from laws import assert_close, encoded_pairs, noisy
from tiny import ARCHITECTURES, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from easyedit_split.errors import SiteError
from easyedit_split.models.parts import context_length
from easyedit_split.scoring.probe import rows_can_be_shared
from easyedit_split.scoring.scorer import PairScorer
from easyedit_split.scoring.token_losses import token_losses

SHAPE: dict[str, Any] = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": 2,
}  # fmt: skip
RECURRENT: dict[str, dict[str, Any]] = {
    "lfm2": {**SHAPE, "layer_types": ["conv", "full_attention"] * 2},
    "recurrent_gemma": {
        **SHAPE, "lru_width": 32, "attention_window_size": 16, "block_types": ["recurrent", "recurrent", "attention"],
    },
    "qwen3_5_text": {
        **SHAPE, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    },
}  # fmt: skip
SCALED = {"granite": {**SHAPE, "logits_scaling": 4.0}, "cohere": {**SHAPE, "logit_scale": 0.25}}
# the recurrent layers' own kernels round by 1e-5
TOLERANCE = 1e-4


def _model(kind: str, **shape: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _own_loss(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
    logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
    return F.cross_entropy(logits[len(prompt) - 1 : -1].float(), torch.tensor(answer), reduction="sum")


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
    _check(_model(kind, **RECURRENT[kind]), packed=False)


@pytest.mark.parametrize("kind", SCALED)
def test_logits_that_are_scaled_afterwards_are_refused(kind: str) -> None:
    with pytest.raises(SiteError, match="does more to its logits"):
        PairScorer(_model(kind, **SCALED[kind]), encoded_pairs())


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
    text = {**SHAPE, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    model = _model("gemma3", text_config={**text, "query_pre_attn_scalar": 8}, vision_config=vision)
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
