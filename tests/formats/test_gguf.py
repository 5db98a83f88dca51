"""GGUF control vectors: the layout llama.cpp reads, the round trip, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import assert_close, logits, noisy
from tiny import token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.positions import Positions
from easyedit_split.errors import ArtifactError, ConfigError, NotMergeableError
from easyedit_split.formats.gguf import from_gguf, to_gguf


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def by_hand(directions: dict[int, list[float]], hint: str) -> bytes:
    """The whole file, byte by byte, from the GGUF v3 description: header, keys, tensor table, padding, data."""
    keys = [
        _string("general.architecture") + struct.pack("<I", 8) + _string("controlvector"),
        _string("controlvector.model_hint") + struct.pack("<I", 8) + _string(hint),
        _string("controlvector.layer_count") + struct.pack("<I", 4) + struct.pack("<I", len(directions)),
    ]
    table, data = b"", b""
    for layer, values in directions.items():
        table += _string(f"direction.{layer}") + struct.pack("<IQIQ", 1, len(values), 0, len(data))
        data += struct.pack(f"<{len(values)}f", *values)
        data += b"\0" * (-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(directions), len(keys)) + b"".join(keys) + table
    return head + b"\0" * (-len(head) % 32) + data


def test_the_file_is_the_one_written_by_hand(lend: Any, tmp_path: Path) -> None:
    artifacts = [noisy(lend("qwen2"), "vector", "residual", layer=k, seed=k) for k in (3, 1)]
    to_gguf(artifacts, tmp_path / "v.gguf", 0.5)
    directions = {a.site.layer: (0.5 * a.delta.tensors()["db"]).tolist() for a in reversed(artifacts)}
    assert (tmp_path / "v.gguf").read_bytes() == by_hand(directions, "qwen2")


def test_round_trip(lend: Any, tmp_path: Path) -> None:
    """A vector at the feed-forward's output comes back at the block's output: the same logits."""
    model = lend("qwen2")
    artifact = noisy(model, "vector", "mlp.down_proj", layer=2)
    with artifact.attach(model, 3.0):
        hooked = logits(model, token_batch())
    to_gguf(artifact, tmp_path / "v.gguf", 3.0)
    (back,) = from_gguf(tmp_path / "v.gguf")
    assert (back.site.layer, back.site.component) == (2, "residual")
    with back.attach(model, 1.0):
        assert_close(logits(model, token_batch()), hooked)


@pytest.mark.parametrize(
    ("kind", "form", "component", "layer", "message"),
    [
        ("qwen2", "lora", "mlp.down_proj", 1, "form 'lora'"),
        ("qwen2", "vector", "mlp.up_proj", 1, "is not"),
        ("gemma2", "vector", "mlp.down_proj", 1, "is not"),
        ("qwen2", "vector", "residual", 0, "layer 0"),
    ],
)
def test_other_changes_are_refused(
    lend: Any, tmp_path: Path, kind: str, form: str, component: str, layer: int, message: str
) -> None:
    with pytest.raises(NotMergeableError, match=message):
        to_gguf(noisy(lend(kind), form, component, layer), tmp_path / "v.gguf")
    assert not list(tmp_path.iterdir())


def test_positions_layers_and_strengths_are_checked(lend: Any, tmp_path: Path) -> None:
    one = noisy(lend("qwen2"), "vector", "residual")
    with pytest.raises(NotMergeableError, match="'answer' only"):
        to_gguf(noisy(lend("qwen2"), "vector", "residual", positions=Positions("answer")), tmp_path / "v.gguf")
    with pytest.raises(ConfigError, match="one vector a layer"):
        to_gguf([one, one], tmp_path / "v.gguf")
    with pytest.raises(ConfigError, match="one vector a layer"):
        to_gguf([], tmp_path / "v.gguf")
    with pytest.raises(ConfigError, match="not finite"):
        to_gguf(one, tmp_path / "v.gguf", 1e40)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a gguf file at all",
        by_hand({1: [1.0]}, "q")[:-40],
        by_hand({1: [float("nan")]}, "q"),
        by_hand({}, "q"),
        by_hand({1: [1.0]}, "q").replace(b"controlvector", b"controlvectot"),
        by_hand({1: [1.0]}, "q").replace(b"direction.1", b"direction.x"),
        by_hand({1: [1.0]}, "q").replace(struct.pack("<QQ", 1, 3), struct.pack("<QQ", 1, 2**60)),
        by_hand({1: [1.0]}, "q").replace(struct.pack("<IQIQ", 1, 1, 0, 0), struct.pack("<IQIQ", 1, 2**50, 0, 0)),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.gguf").write_bytes(data)
    with pytest.raises(ArtifactError, match="control vector|no directions"):
        from_gguf(tmp_path / "v.gguf")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        from_gguf(tmp_path / "v.gguf")


def test_artifacts_of_both_kinds_attach_together(lend: Any, tmp_path: Path) -> None:
    model = lend("qwen2")
    artifacts = [noisy(model, "vector", "residual", layer=k, seed=k) for k in (1, 3)]
    to_gguf(artifacts, tmp_path / "v.gguf")
    back = from_gguf(tmp_path / "v.gguf")
    found = [_together(model, several) for several in (artifacts, back)]
    assert torch.equal(*found)


def _together(model: Any, artifacts: list[SteeringArtifact]) -> torch.Tensor:
    handles = [a.attach(model, 2.0) for a in artifacts]
    try:
        return logits(model, token_batch())
    finally:
        for handle in handles:
            handle.remove()
