"""Plain checkpoints: they load where this package is not installed and give the hooked model's logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import assert_close, logits, noisy
from tiny import ARCHITECTURES, MAIN, tiny_model, tiny_tokenizer, token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.cli import main
from easyedit_split.errors import ArtifactError, ConfigError, NotMergeableError
from easyedit_split.formats.huggingface import check_shard_size, export_checkpoint
from easyedit_split.models.parts import has_norm_after_mlp

READER = """
import sys
sys.modules["easyedit_split"] = None  # it may be installed here: every import of it is an error from now on
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
ids = load_file("ids.safetensors")["ids"]
found = {}
for folder in sys.argv[1:]:
    AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with torch.no_grad():
        found[folder] = model.eval()(input_ids=ids).logits
save_file(found, "logits.safetensors")
"""


def test_a_checkpoint_needs_nothing_of_this_package(lend: Any, tmp_path: Path) -> None:
    """Law 2 for checkpoints, where the package cannot be imported: dW everywhere, db where it fits."""
    from safetensors.torch import load_file, save_file

    ids, expected = token_batch(), {}
    for kind in ARCHITECTURES:
        model = lend(kind)
        artifact = noisy(model, "lora")
        expected[kind] = _hooked(model, artifact, ids)
        export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / kind, 1.5)
    for kind in ("gpt2", "gpt_neox", "llama"):
        model = lend(kind)
        artifact = noisy(model, "local_weight")
        expected[f"{kind}_db"] = _hooked(model, artifact, ids)
        export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / f"{kind}_db", 1.5)
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", READER, *expected]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "logits.safetensors")
    for name, values in expected.items():
        assert_close(found[name], values)


def _hooked(model: Any, artifact: SteeringArtifact, ids: torch.Tensor, m: float = 1.5) -> torch.Tensor:
    with artifact.attach(model, m):
        return logits(model, ids)


def _reloaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("kind", "component", "switch", "siblings"),
    [
        ("llama", "mlp.down_proj", "mlp_bias", 12),
        ("llama", "mlp.gate_proj", "mlp_bias", 12),
        ("llama", "self_attn.o_proj", "attention_bias", 16),
        ("qwen3", "self_attn.q_proj", "attention_bias", 16),
        ("gemma2", "self_attn.o_proj", "attention_bias", 16),
        ("gemma3_text", "self_attn.v_proj", "attention_bias", 16),
    ],
)
def test_the_switch_of_the_config_is_turned_on(
    lend: Any, tmp_path: Path, kind: str, component: str, switch: str, siblings: int
) -> None:
    """4 layers of 3 feed-forward or 4 attention maps: all their biases are written, all zero but ours."""
    model = lend(kind)
    artifact = noisy(model, "local_weight", component)
    hooked = _hooked(model, artifact, token_batch())
    before = set(model.state_dict())
    export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / "out", 1.5)
    assert set(model.state_dict()) == before
    assert getattr(model.config, switch) is False
    assert json.loads((tmp_path / "out/config.json").read_text())[switch] is True
    back = _reloaded(tmp_path / "out")
    assert_close(logits(back, token_batch()), hooked)
    new = {k: v for k, v in back.state_dict().items() if k not in before}
    assert len(new) == siblings
    assert sum(bool(v.any()) for v in new.values()) == 1


@pytest.mark.parametrize(
    ("kind", "component"),
    [(k, "mlp.down_proj") for k in ("qwen2", "gemma2", "mistral")] + [("qwen2", "self_attn.o_proj")],
)  # fmt: skip
@pytest.mark.parametrize("form", ["vector", "local_weight"])
def test_a_bias_with_no_place_is_refused(lend: Any, tmp_path: Path, kind: str, component: str, form: str) -> None:
    """Law 9; the message says what to do, and doing that works."""
    model = lend(kind)
    artifact = noisy(model, form, component)
    with pytest.raises(NotMergeableError, match="no bias in a .* set m2=0 .* bias='lora_bias' .*, or attach"):
        export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / "out", 1.5)
    assert list(tmp_path.iterdir()) == []
    if form == "local_weight":
        export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / "out", m1=1.5, m2=0.0)
        with artifact.attach(model, m1=1.5, m2=0.0):
            hooked = logits(model, token_batch())
        assert_close(logits(_reloaded(tmp_path / "out"), token_batch()), hooked)


def test_a_bias_that_exists_takes_db(lend: Any, tmp_path: Path) -> None:
    """Qwen2's q, k and v have one: no switch is needed."""
    model = lend("qwen2")
    artifact = noisy(model, "local_weight", "self_attn.q_proj")
    hooked = _hooked(model, artifact, token_batch())
    export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / "out", 1.5)
    assert_close(logits(_reloaded(tmp_path / "out"), token_batch()), hooked)


def test_a_checkpoint_of_nothing_is_not_written(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    for options in ({"m1": 2.0, "m2": 0.0}, {"m": 0.0}):
        with pytest.raises(NotMergeableError, match="the checkpoint would be the unsteered model"):
            export_checkpoint(model, tiny_tokenizer(), noisy(model, "vector"), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_shards_tokenizer_and_generation_config_come_along(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    model.generation_config.max_new_tokens = 17
    export_checkpoint(model, tiny_tokenizer(), noisy(model, "lora"), tmp_path / "out", 1.0, max_shard_size="40KB")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json"} <= names
    assert len([n for n in names if n.endswith(".safetensors")]) > 1
    assert _reloaded(tmp_path / "out").generation_config.max_new_tokens == 17
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_sum_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny_model("qwen2", dtype=dtype)
    artifact = noisy(model, "lora")
    weight = model.model.layers[1].mlp.down_proj.weight
    expected = (weight.float() + 1.5 * artifact.delta.weight()).to(dtype)
    export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / "out", 1.5)
    from transformers import AutoModelForCausalLM

    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert back.dtype == dtype
    assert torch.equal(back.model.layers[1].mlp.down_proj.weight, expected)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama", vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    artifact = noisy(model, "vector")
    ids = token_batch() % 64
    hooked = _hooked(model, artifact, ids)
    export_checkpoint(model, tiny_tokenizer(), artifact, tmp_path / "out", 1.5)
    back = _reloaded(tmp_path / "out")
    assert back.lm_head.weight is back.model.embed_tokens.weight
    assert_close(logits(back, ids), hooked)


def test_a_folder_in_use_is_refused(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(ArtifactError, match="exists already"):
        export_checkpoint(model, tiny_tokenizer(), noisy(model), tmp_path / "out", 1.0)
    (tmp_path / "file").write_text("keep")
    with pytest.raises(ArtifactError, match="could not be written"):
        export_checkpoint(model, tiny_tokenizer(), noisy(model), tmp_path / "file/out", 1.0)
    assert (tmp_path / "out/mine.txt").read_text() == "keep"


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own
def test_a_wrapped_model_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    artifact = noisy(tiny_model("qwen2"), "lora")
    wrapped = get_peft_model(tiny_model("qwen2"), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(NotMergeableError, match="merge_and_unload"):
        export_checkpoint(wrapped, tiny_tokenizer(), artifact, tmp_path / "out", 1.0)


def test_strengths_that_overflow_are_refused(tmp_path: Path) -> None:
    model = tiny_model("qwen2", dtype=torch.float16)
    with pytest.raises(NotMergeableError, match="overflows torch.float16"):
        export_checkpoint(model, tiny_tokenizer(), noisy(model, "lora"), tmp_path / "out", 1e7)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["5", "0GB", "GB", "many", "-5GB"])
def test_shard_sizes_are_checked(text: str) -> None:
    with pytest.raises(ConfigError, match="not understood"):
        check_shard_size(text)
    assert check_shard_size("200MB") == "200MB"


@pytest.mark.parametrize("kind", MAIN)
def test_every_target_of_the_command(tmp_path: Path, capsys: Any, kind: str) -> None:
    """One vector artifact through the command line: to each target that takes it, and a sentence from the others."""
    from easyedit_split.formats.gguf import from_gguf

    model = tiny_model(kind)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    artifact = noisy(model, "vector")
    artifact.save(tmp_path / "art")
    shared = ["export", "--artifact", str(tmp_path / "art"), "-m", "2", f"model_name_or_path={tmp_path / 'model'}"]
    status = {to: main([*shared, "--to", to, "--out", str(tmp_path / to)]) for to in ("hf", "peft", "gguf", "easyedit")}
    plain_mlp = not has_norm_after_mlp(model.model.layers[0]) if kind != "gpt2" else True
    assert status == {
        "hf": 0 if kind in ("gpt2", "llama") else 2,
        "peft": 2,
        "gguf": 0 if plain_mlp else 2,
        "easyedit": 0 if plain_mlp else 2,
    }
    assert "lora_bias" in capsys.readouterr().err
    if plain_mlp:
        vector = 2 * artifact.delta.tensors()["db"]
        assert torch.equal(from_gguf(tmp_path / "gguf")[0].delta.tensors()["db"], vector)
        assert torch.equal(torch.load(tmp_path / "easyedit/layer_1.pt", weights_only=True), vector)


def test_a_local_weight_through_the_command(tmp_path: Path, capsys: Any) -> None:
    model = tiny_model("qwen2")
    noisy(model).save(tmp_path / "art")
    shared = ["export", "--artifact", str(tmp_path / "art"), "--to", "peft", "--out", str(tmp_path / "out")]
    assert main([*shared, "--without-db", "--energy", "0.9"]) == 0
    assert "relative error of dW" in capsys.readouterr().out
    assert main([*shared, "--without-db", "--lora-bias"]) == 2
    assert "contradict" in capsys.readouterr().err
