"""One change at several sites, as others keep it: adapters, checkpoints, control vectors, EasyEdit's files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import KINDS, MIXED, STREAM, assert_close, joint, logits, one_by_one
from test_peft import served
from tiny import token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.errors import ConfigError, NotMergeableError
from easyedit_split.formats.gguf import from_gguf, to_gguf
from easyedit_split.formats.huggingface import export_checkpoint
from easyedit_split.formats.peft import to_peft
from easyedit_split.models.identity import identify_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def hooked(model: Any, artifact: SteeringArtifact, m: float) -> torch.Tensor:
    with artifact.attach(model, m):
        return logits(model, token_batch())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m", [1.5, -2.0])
def test_an_adapter_over_several_modules(lend: Any, tmp_path: Path, kind: str, m: float) -> None:
    """Law 2 through peft; read back, it is one change again, as it was."""
    model = lend(kind)
    artifact = replace(joint(model), origin={"objective": {"name": "split"}})
    done = to_peft(artifact, tmp_path, m)
    assert (done.rank, done.relative_error, done.energy) == (3, 0.0, 1.0)
    for merged in (False, True):
        assert_close(served(model, tmp_path, merged), hooked(model, artifact, m))
    back = SteeringArtifact.from_peft(tmp_path)
    assert isinstance(back, SteeringArtifact)
    assert (back.site, back.model, back.origin) == (artifact.site, artifact.model, artifact.origin)
    assert_close(hooked(model, back, 1.0), hooked(model, artifact, m))


@pytest.mark.filterwarnings("ignore:.*lora_bias=True.* was passed")  # PEFT, of layers without a bias
@pytest.mark.parametrize("kind", KINDS)
def test_a_local_weight_of_a_rank_for_each_layer(lend: Any, tmp_path: Path, kind: str) -> None:
    """The ranks that keep a share of `|dW|^2` differ; PEFT reads each, at one scale."""
    model = lend(kind)
    artifact = joint(model, "local_weight")
    with torch.no_grad():
        artifact.parts[1].delta.dW[:, :40] *= 0.001
    done = to_peft(artifact, tmp_path / "most", 1.5, energy=0.999, bias="lora_bias")
    config = json.loads((tmp_path / "most/adapter_config.json").read_text())
    assert len(config["rank_pattern"]) == 1 and done.rank == config["r"] > min(config["rank_pattern"].values())
    wanted = hooked(model, artifact, 1.5)
    assert 0 < done.relative_error < 0.04 and (served(model, tmp_path / "most") - wanted).abs().max() < 0.5
    to_peft(artifact, tmp_path / "all", 1.5, rank=32, bias="lora_bias")
    assert_close(served(model, tmp_path / "all"), wanted, 3e-5)
    back = SteeringArtifact.from_peft(tmp_path / "most")
    assert isinstance(back, SteeringArtifact) and back.form == "local_weight"
    assert_close(hooked(model, back, 1.0), served(model, tmp_path / "most"), 3e-5)


def test_two_parts_in_one_module_are_no_adapter(lend: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two parts of the change lie in transformer.h.1.attn.c_attn"):
        to_peft(joint(lend("gpt2"), places=MIXED), tmp_path, 1.0, model=lend("gpt2"))
    model, artifact = lend("qwen2"), joint(lend("qwen2"), places=MIXED)
    to_peft(artifact, tmp_path, 1.5)
    assert_close(served(model, tmp_path), hooked(model, artifact, 1.5))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_a_plain_checkpoint(lend: Any, tokenizer: Any, tmp_path: Path, kind: str) -> None:
    """Law 9 on disk: every `db` into a bias, by Llama's switch, or none of them, with the way out."""
    from transformers import AutoModelForCausalLM

    model = lend(kind)
    artifact, strength = joint(model, "local_weight"), {"m": 1.5}
    if kind == "gemma2":
        with pytest.raises(NotMergeableError, match="layers 1-3, mlp.down_proj has no bias"):
            export_checkpoint(model, tokenizer, artifact, tmp_path / "out", **strength)
        strength = {"m1": 1.5, "m2": 0.0}
    export_checkpoint(model, tokenizer, artifact, tmp_path / "out", **strength)
    with artifact.attach(model, **strength):
        expected = logits(model, token_batch())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert_close(logits(again, token_batch()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_vector_is_one_change(lend: Any, tmp_path: Path, kind: str) -> None:
    model = lend(kind)
    artifact = joint(model, "vector", STREAM)
    to_gguf(artifact, tmp_path / "v.gguf", 0.5)
    back = SteeringArtifact.joined(from_gguf(tmp_path / "v.gguf"))
    assert back.site == artifact.site
    assert_close(hooked(model, back, 3.0), hooked(model, artifact, 1.5))
    if kind == "gemma2":
        with pytest.raises(NotMergeableError, match="layer 1, mlp.down_proj is not"):
            to_gguf(replace(joint(model, "vector"), model=identify_model(model, 1, 2, 3)), tmp_path / "w.gguf")


def test_easyedit_reads_a_layer_with_its_own_multiplier(lend: Any, tmp_path: Path) -> None:
    """Its plain tensors, one a layer; and of any form our own reader of its folders takes one layer of the change."""
    from easyedit_split.easyedit.artifacts import read_folder

    model, ids = lend("qwen2"), token_batch()
    for form, places in (("vector", STREAM), ("lora", MIXED[2:])):
        artifact = joint(model, form, places)
        artifact.save(tmp_path / form)
        read = [read_folder(tmp_path / form, site.layer) for site in artifact.site.sites]
        strengths = {site.layer: 1.0 + site.layer for site in artifact.site.sites}
        with artifact.attach(model, strengths):
            expected = logits(model, ids)
        assert torch.equal(one_by_one(model, SteeringArtifact.joined(read), ids, strengths.values()), expected)
    for layer in (1, 2):
        plain = torch.load(tmp_path / f"vector/layer_{layer}.pt", weights_only=True)
        assert torch.equal(plain, joint(model, "vector", STREAM).parts[layer - 1].delta.bias_term())
