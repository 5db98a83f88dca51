"""Models whose weights bitsandbytes holds in 4 or 8 bits: attach, train, sweep; merging is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import random_delta, tiny_tokenizer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config

from easyedit_split import PreferencePair, Site, SteeringArtifact, TrainConfig, sweep, train
from easyedit_split.changes.forms import FORMS, make_delta
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import ConfigError, NotMergeableError

pytest.importorskip("bitsandbytes", reason="quantised models need the extra: pip install easyedit-split[quantised]")
pytestmark = pytest.mark.filterwarnings("ignore:MatMul8bitLt")

SITE = Site(1)
PAIRS = [PreferencePair(f"What is {i}?", f"It is {i * i}.", f"No idea, {i}.") for i in range(6)]
WIDTHS = {"hidden_size": 64, "intermediate_size": 128}  # multiples of the 64 weights that share a 4-bit scale


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=260, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, pad_token_id=259,
        eos_token_id=258, bos_token_id=256, **WIDTHS,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


@pytest.fixture(params=["4 bits", "8 bits"])
def model(request: pytest.FixtureRequest, folder: Path) -> Any:
    bits = {"4 bits": {"load_in_4bit": True}, "8 bits": {"load_in_8bit": True}}[request.param]
    quantised = BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.float32, **bits)
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantised, device_map="cpu", dtype=torch.float32
    )
    assert type(loaded.model.layers[1].mlp.down_proj).__name__ in ("Linear4bit", "Linear8bitLt")
    return loaded.eval()


def _change(form: str) -> SteeringArtifact:
    delta = make_delta(form, WIDTHS["intermediate_size"], WIDTHS["hidden_size"], 4)
    return SteeringArtifact(random_delta(delta), SITE)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(30, 60).view(2, 15)).logits


@pytest.mark.parametrize("form", FORMS)
def test_attaching_adds_the_change_to_the_output_of_the_layer(model: Any, form: str) -> None:
    plain, change = _logits(model), _change(form)
    module = model.model.layers[1].mlp.down_proj
    hook = module.register_forward_hook(lambda m, args, out: out + 1.5 * change.delta(args[0].float()).to(out.dtype))
    expected = _logits(model)
    hook.remove()
    with change.attach(model, 1.5) as handle:
        assert torch.allclose(_logits(model), expected, atol=1e-5)
        handle.set_strength(0.0)
        assert torch.equal(_logits(model), plain)
    assert not torch.equal(expected, plain)


@pytest.mark.parametrize("form", FORMS)
def test_training_lowers_the_loss_and_leaves_the_model_alone(model: Any, form: str) -> None:
    plain, tokenizer = _logits(model), tiny_tokenizer()
    if getattr(model.model.layers[1].mlp.down_proj, "support_avx512bf16_for_cpu", False):
        with pytest.raises(ConfigError, match="hold 4-bit weights on the processor"):
            train(model, tokenizer, PAIRS, site=SITE, form=form)
        return
    config = TrainConfig(n_epochs=6, batch_size=3, lr=0.05 if form == "vector" else 0.01, rank=4)
    artifact = train(model, tokenizer, PAIRS, site=SITE, form=form, config=config)
    assert all(t.dtype == torch.float32 for t in artifact.delta.tensors().values())
    assert torch.equal(_logits(model), plain)
    table = sweep(model, tokenizer, PAIRS, artifact, [0.0, 1.0], "sum")
    preference = table.preference().mean(axis=1)
    assert np.isfinite(table.loss_pos).all()
    assert preference[1] > preference[0] + 0.05


@pytest.mark.parametrize("form", FORMS)
def test_a_sweep_scores_as_the_model_itself_does(model: Any, form: str) -> None:
    """At each strength the summed losses of both answers are those of the model's own logits, row by row."""
    tokenizer, change = tiny_tokenizer(), _change(form)
    table = sweep(model, tokenizer, PAIRS, change, [-1.0, 0.0, 2.0], "sum")
    encoded = Encoder(tokenizer).pairs(PAIRS)
    for k, m in enumerate(table.factors):
        with change.attach(model, float(m)), torch.no_grad():
            losses = [_loss(model, pair.prompt, pair.matching) for pair in encoded]
        np.testing.assert_allclose(table.loss_pos[k], losses, rtol=2e-3)  # the kernels round products to bfloat16


def _loss(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))


def test_merging_is_refused(model: Any) -> None:
    with pytest.raises(NotMergeableError, match=r"quantised: attach the change instead"):
        _change("local_weight").merge(model, 1.0)
