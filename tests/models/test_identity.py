"""The model's identity: known again in other precisions and wrappings, told from a model of the same shape."""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS, logits, noisy
from tiny import tiny_model, token_batch

from easyedit_split import Site, SteeringArtifact, TrainConfig, diff_mean, train
from easyedit_split.errors import ArtifactError
from easyedit_split.models.identity import check_model, describe_model, identify_model
from easyedit_split.models.weights import sampled_weights

CONFIG = TrainConfig(n_epochs=1, batch_size=5, lr=0.05)


def _trained(model: Any, tokenizer: Any, form: str = "vector", layer: int = 1) -> SteeringArtifact:
    return train(model, tokenizer, TEXT_PAIRS, site=Site(layer), form=form, config=CONFIG)


def _other(kind: str = "qwen2", noise: float = 0.01) -> Any:
    """The lent model with noise on every weight."""
    model = tiny_model(kind)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_a_model_of_the_same_shape_is_refused_and_can_be_insisted_on(kind: str, tokenizer: Any) -> None:
    artifact, other = _trained(tiny_model(kind), tokenizer), _other(kind)
    for use in (artifact.attach, artifact.merge):
        with pytest.raises(ArtifactError, match="same shape|its shape but other weights") as caught:
            use(other, 1.0)
        assert "--any-model" in str(caught.value) and "\n" not in str(caught.value)
    with artifact.attach(other, 1.0, any_model=True):
        pass
    artifact.merge(other, 1.0, any_model=True).undo()
    with artifact.for_any_model().attach(other, 1.0):
        pass
    with artifact.attach(tiny_model(kind), 1.0):
        pass


def test_every_way_of_making_a_change_remembers_the_weights(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    artifact = diff_mean(lend("qwen2"), tokenizer, TEXT_PAIRS, layer=1)
    artifact.save(tmp_path)
    with pytest.raises(ArtifactError, match="other weights"):
        SteeringArtifact.load(tmp_path).attach(_other(), 1.0)


def test_one_tensor_of_the_steered_layer_is_enough_and_those_above_do_not_count(tokenizer: Any) -> None:
    artifact = _trained(tiny_model("llama"), tokenizer)
    for layer, refused in ((1, True), (2, False)):
        other = tiny_model("llama")
        with torch.no_grad():
            other.model.layers[layer].self_attn.q_proj.weight.mul_(1.01)
        if refused:
            with pytest.raises(ArtifactError, match=r"1 of \d+ tensors up to layer 1 differ, 1.self_attn.q_proj"):
                artifact.attach(other, 1.0)
        else:
            artifact.attach(other, 1.0).remove()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_copy_in_half_precision_is_recognised_and_said_once(dtype: torch.dtype, tokenizer: Any) -> None:
    artifact = _trained(tiny_model("qwen2"), tokenizer)
    half = tiny_model("qwen2").to(dtype)
    with pytest.warns(UserWarning, match=f"the model is the one .* in {str(dtype)[6:]} .then float32"):
        artifact.attach(half, 1.0).remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        artifact.attach(half, 1.0).remove()
    with pytest.raises(ArtifactError, match="other weights"):
        artifact.attach(_other(noise=0.02).to(dtype), 1.0)


def test_a_change_of_a_half_precision_model_meets_the_same_in_float32(tokenizer: Any) -> None:
    half = tiny_model("qwen2").to(torch.bfloat16)
    artifact = _trained(half, tokenizer)
    with pytest.warns(UserWarning, match="in float32 .then bfloat16"):
        artifact.attach(tiny_model("qwen2"), 1.0).remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        artifact.attach(copy.deepcopy(half), 1.0).remove()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
def test_merged_changes_and_adapters_do_not_make_it_another_model(tokenizer: Any) -> None:
    import peft

    model = tiny_model("qwen2")
    artifact = _trained(model, tokenizer, "local_weight")
    first = artifact.merge(model, 1.0)
    second = artifact.merge(model, 1.0)
    artifact.attach(model, 1.0).remove()
    second.undo()
    artifact.attach(model, 1.0).remove()
    first.undo()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "down_proj"]))
    artifact.attach(wrapped, 1.0).remove()
    with torch.no_grad():
        wrapped.get_base_model().model.layers[0].mlp.up_proj.weight.add_(0.1)
    with pytest.raises(ArtifactError, match=r"0\.mlp\.up_proj\.weight"):
        artifact.attach(wrapped, 1.0)


def test_changes_of_two_models_have_no_sum(lend: Any) -> None:
    from easyedit_split.errors import ConfigError

    model, other = lend("qwen2"), _other()
    one = replace(noisy(model), model=identify_model(model, 1))
    assert (one + one).id == one.scaled(2.0).id
    with pytest.raises(ConfigError, match="other weights"):
        one + replace(noisy(other), model=identify_model(other, 1))


def test_what_is_not_known_is_not_asked(lend: Any) -> None:
    """An artifact of an earlier version, and one that was read from an adapter."""
    model = lend("qwen2")
    for kept in (describe_model(model), {}):
        artifact = replace(noisy(model), model=kept)
        artifact.attach(model, 1.0).remove()
        artifact.attach(_other(), 1.0).remove()


def test_an_enlarged_vocabulary_is_the_same_model(tokenizer: Any) -> None:
    model = tiny_model("qwen2")
    kept = identify_model(model, 1)
    model.resize_token_embeddings(300, mean_resizing=False)
    check_model(kept, model, 1)


def test_numbers_survive_the_file_exactly(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    artifact = _trained(lend("gemma2"), tokenizer, layer=3)
    artifact.save(tmp_path)
    again = SteeringArtifact.load(tmp_path)
    assert again.model == artifact.model and again.id == artifact.id
    assert again.model["weights"]["layer"] == 3


def test_ids_tell_changes_apart(lend: Any) -> None:
    model = lend("qwen2")
    same = {noisy(model).id, noisy(model).id}
    others = {noisy(model, seed=2).id, noisy(model, layer=2).id, noisy(model, positions="answer").id}
    assert len(same) == 1 and len(others) == 3 and not same & others


def test_a_broken_description_is_one_sentence(lend: Any) -> None:
    model = lend("qwen2")
    for weights in ({"layer": 1}, {"layer": 1, "kinds": {}, "values": 3}, [1], {"layer": 1, "kinds": {"a": "x"},
                    "values": {"a": [1.0]}}):  # fmt: skip
        broken = replace(noisy(model), model={**describe_model(model), "weights": weights})
        with pytest.raises(ArtifactError, match="broken"):
            broken.attach(model, 1.0)


def test_attaching_again_costs_next_to_nothing() -> None:
    """Numbers are taken once a model, and again where a weight was written to."""
    from easyedit_split.models import weights

    model = tiny_model("llama", layers=24)
    artifact = replace(noisy(model, layer=23), model=identify_model(model, 23))
    assert sampled_weights(model, 23) is sampled_weights(model, 23)
    best = min(_seconds(lambda: artifact.attach(model, 1.0).remove()) for _ in range(5))
    assert best < 0.02, f"{best:.4f} s of processor time"
    before = weights.sampled_weights(model, 23)
    with torch.no_grad():
        model.model.layers[3].mlp.up_proj.weight.add_(1.0)
    assert weights.sampled_weights(model, 23) is not before
    with pytest.raises(ArtifactError, match=r"3\.mlp\.up_proj"):
        artifact.attach(model, 1.0)


def _seconds(work: Any) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def test_offloaded_weights_are_read(tmp_path: Path, tokenizer: Any) -> None:
    from accelerate import cpu_offload, disk_offload

    artifact = _trained(tiny_model("qwen2"), tokenizer)
    for offload in (cpu_offload, lambda m: disk_offload(m, str(tmp_path / str(id(m))))):
        offloaded = offload(tiny_model("qwen2"))
        assert sampled_weights(offloaded, 1).values == sampled_weights(tiny_model("qwen2"), 1).values
        artifact.attach(offloaded, 1.0).remove()
        with pytest.raises(ArtifactError, match="other weights"):
            artifact.attach(offload(_other()), 1.0)


@pytest.mark.parametrize("kind", ["4 bits", "4 bits, fp4", "4 bits, nested", "8 bits"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_quantised_copies_are_recognised(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config

    config = Qwen2Config(
        vocab_size=260, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, hidden_size=64,
        intermediate_size=128, pad_token_id=259, eos_token_id=258, bos_token_id=256,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    artifact = replace(noisy(model, layer=2), model=identify_model(model, 2))
    model.save_pretrained(tmp_path / "same")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.copy_(torch.randn(128, 64) * 0.02)
    model.save_pretrained(tmp_path / "other")
    options = {
        "4 bits": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "4 bits, fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        "4 bits, nested": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        "8 bits": {"load_in_8bit": True},
    }[kind]
    if options.get("load_in_4bit"):
        options["bnb_4bit_compute_dtype"] = torch.float32
    load = {"quantization_config": BitsAndBytesConfig(**options), "device_map": "cpu", "dtype": torch.float32}
    same = AutoModelForCausalLM.from_pretrained(tmp_path / "same", **load).eval()
    sample = sampled_weights(same, 2)
    quantised = [n for n, k in sample.kinds.items() if k in ("int8", "nf4", "fp4")]
    assert len(quantised) == 7 * 3, "every map of three blocks is read"
    with pytest.warns(UserWarning, match="the model is the one"):
        artifact.attach(same, 1.0).remove()
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "other", **load).eval()
    with pytest.raises(ArtifactError, match=r"1 of \d+ tensors up to layer 2 differ, 1.mlp.up_proj"):
        artifact.attach(other, 1.0)
    if kind == "8 bits":  # bitsandbytes keeps the scales elsewhere after its first pass
        with torch.no_grad():
            same(input_ids=torch.arange(4)[None])
        assert len([k for k in sampled_weights(same, 2).kinds.values() if k == "int8"]) == 21
    values = {n: np.array(sample.values[n]) for n in quantised}
    assert all((np.abs(v) > 0).any() for v in values.values())


@pytest.mark.parametrize("kind", ["glm4", "granite"])
def test_what_stands_behind_the_feed_forward_is_measured(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    """A residual vector of GLM-4 or Granite is in no weight, and one at the feed-forward is no plain vector."""
    from easyedit_split.errors import NotMergeableError
    from easyedit_split.formats.gguf import to_gguf

    model = _sandwich(kind)
    assert identify_model(model, 1)["mlp_adds_to_stream"] is False
    residual = replace(noisy(model, "vector", "residual"), model=identify_model(model, 1))
    with pytest.raises(NotMergeableError, match="attach it instead"):
        residual.merge(model, 1.0)
    with pytest.raises(NotMergeableError):
        residual.to_peft(tmp_path / "peft", 1.0, model=model, bias="lora_bias")
    for kept in (identify_model(model, 1), describe_model(model)):
        at_mlp = replace(noisy(model, "vector", "mlp.down_proj"), model=kept)
        assert not at_mlp.acts_at_block_output
        at_mlp.save(tmp_path / "saved")
        assert not list((tmp_path / "saved").glob("*.pt"))
        with pytest.raises(NotMergeableError):
            to_gguf(at_mlp, tmp_path / "v.gguf")
    for form in ("vector", "lora", "local_weight"):  # and what merges gives the logits of attaching
        change = noisy(model, form, "mlp.down_proj")
        ids = token_batch()
        with change.attach(model, 1.5):
            expected = logits(model, ids)
        edit = change.merge(model, 1.5)
        found = logits(model, ids)
        edit.undo()
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def _sandwich(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    more = {"granite": {"residual_multiplier": 0.22}, "glm4": {"head_dim": 8}}[kind]
    config = AutoConfig.for_model(
        kind, vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=259, eos_token_id=258, bos_token_id=256, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def test_a_residual_vector_still_merges_where_nothing_stands_between(lend: Any) -> None:
    model, ids = lend("llama"), token_batch()
    change = noisy(model, "vector", "residual")
    with noisy(model, "vector", "residual", seed=4).attach(model, torch.tensor([1.0, 2.0, 3.0])):
        edit = change.merge(model, 1.0)  # measured with what else is attached silenced
    found = logits(model, ids)
    edit.undo()
    with change.attach(model, 1.0):
        expected = logits(model, ids)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
