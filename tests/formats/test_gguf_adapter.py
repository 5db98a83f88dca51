"""LoRA adapters in GGUF: what the file holds, and what is refused. llama.cpp itself reads them in
`tests/serving/test_llama_cpp.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from laws import noisy

pytest.importorskip("gguf")
from gguf import GGUFReader

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.positions import Positions
from easyedit_split.cli import main
from easyedit_split.errors import ConfigError, NotMergeableError
from easyedit_split.formats.gguf_adapter import to_gguf_adapter
from easyedit_split.models.sites import Sites


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    reader = GGUFReader(path)
    keys = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    return keys, {t.name: torch.tensor(t.data) for t in reader.tensors}


@pytest.mark.parametrize("m", [1.0, -1.5])
def test_a_lora_is_written_as_it_is(lend: Any, tmp_path: Path, m: float) -> None:
    artifact = noisy(lend("qwen2"), "lora", "mlp.down_proj", layer=2)
    done = to_gguf_adapter(artifact, tmp_path / "a.gguf", m)
    keys, tensors = read(done.path)
    assert keys == {
        "general.architecture": "qwen2", "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 3.0,
    }  # fmt: skip
    matrices = artifact.delta.tensors()
    assert torch.equal(tensors["blk.2.ffn_down.weight.lora_a"], matrices["A"])
    assert torch.equal(tensors["blk.2.ffn_down.weight.lora_b"], m * matrices["B"])
    assert (done.rank, done.relative_error) == (3, 0.0)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_rotated_rows_are_in_llama_cpp_s_order(lend: Any, tmp_path: Path, kind: str) -> None:
    """Row `h d + i` of a head's first half goes to `h d + 2 i`, of its second half to `h d + 2 i + 1`."""
    model = lend(kind)
    head = model.config.head_dim
    for component, name in (("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k")):
        artifact = noisy(model, "lora", component)
        with pytest.raises(ConfigError, match="pass model="):
            to_gguf_adapter(artifact, tmp_path / "a.gguf")
        _, tensors = read(to_gguf_adapter(artifact, tmp_path / "a.gguf", model=model).path)
        b = artifact.delta.tensors()["B"]
        for row in range(len(b)):
            h, i = divmod(row, head)
            there = h * head + 2 * (i % (head // 2)) + i // (head // 2)
            assert torch.equal(tensors[f"blk.1.{name}.weight.lora_b"][there], b[row])


def test_a_local_weight_of_a_rank_for_each_layer(lend: Any, tmp_path: Path) -> None:
    """`alpha` is one for the file, so each part's B takes up what its own rank changes in the scale."""
    model = lend("qwen2")
    parts = [noisy(model, "local_weight", "mlp.down_proj", layer=k, seed=k) for k in (1, 2)]
    with torch.no_grad():
        parts[1].delta.dW[:, :40] *= 0.001
    artifact = SteeringArtifact.joined(parts)
    assert isinstance(artifact.site, Sites)
    with pytest.raises(NotMergeableError, match="no place for the db"):
        to_gguf_adapter(artifact, tmp_path / "a.gguf", energy=0.99)
    for energy, largest in ((0.999, 0.04), (1.0, 1e-6)):
        done = to_gguf_adapter(artifact, tmp_path / "a.gguf", 2.0, energy=energy, without_db=True)
        keys, tensors = read(done.path)
        for part in artifact.parts:
            a, b = (tensors[f"blk.{part.site.layer}.ffn_down.weight.lora_{k}"] for k in "ab")
            scale = keys["adapter.lora.alpha"] / len(a)  # llama.cpp's, at scale 1
            want = 2.0 * part.delta.tensors()["dW"]
            assert (scale * b @ a - want).norm() <= largest * want.norm()
        assert done.relative_error <= largest
    assert done.rank == 32


def test_what_llama_cpp_would_not_do_is_refused(lend: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with pytest.raises(ConfigError, match="names for 'gpt2' are not known.*convert_lora_to_gguf"):
        to_gguf_adapter(noisy(lend("gpt2"), "lora"), path)
    with pytest.raises(NotMergeableError, match="'answer' only"):
        to_gguf_adapter(noisy(lend("qwen2"), "lora", positions=Positions("answer")), path)
    with pytest.raises(ConfigError, match="m = 0 is the unsteered model"):
        to_gguf_adapter(noisy(lend("qwen2"), "lora"), path, 0.0)
    with pytest.raises(ConfigError, match="not finite in float32"):
        to_gguf_adapter(noisy(lend("qwen2"), "lora"), path, 1e40)
    with pytest.raises(ConfigError, match="give rank="):
        to_gguf_adapter(noisy(lend("qwen2")), path, without_db=True)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_what_fits_the_form(lend: Any, tmp_path: Path, capsys: Any) -> None:
    for form in ("lora", "local_weight", "vector"):
        noisy(lend("qwen2"), form).save(tmp_path / form)
    export = ["export", "--to", "gguf", "-m", "2", "--artifact"]
    assert main([*export, str(tmp_path / "lora"), "--out", str(tmp_path / "l.gguf")]) == 0
    assert main([*export, str(tmp_path / "vector"), "--out", str(tmp_path / "v.gguf")]) == 0
    whole = ["--energy", "1", "--without-db"]
    assert main([*export, str(tmp_path / "local_weight"), "--out", str(tmp_path / "w.gguf"), *whole]) == 0
    said = capsys.readouterr().out
    assert "LoRA adapter, rank 3, m = 2 ->" in said and "direction.1, m = 2 ->" in said
    assert "rank 32, m = 2, relative error of dW" in said
    assert main([*export, str(tmp_path / "local_weight"), "--out", str(tmp_path / "x.gguf"), *whole[:2]]) == 2
    assert "--without-db" in capsys.readouterr().err
