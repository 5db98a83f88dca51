"""What is kept on disk: the round trip, what is refused, and what is never read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import assert_close, logits, noisy
from tiny import tiny_model, token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import FORMS
from easyedit_split.changes.positions import Positions
from easyedit_split.errors import ArtifactError
from easyedit_split.models.identity import describe_model
from easyedit_split.storage.files import read_tensors, write_atomically, write_tensors


@pytest.fixture
def saved(lend: Any, tmp_path: Path) -> Path:
    return noisy(lend("qwen2")).save(tmp_path)


def _rewrite(path: Path, **header: Any) -> None:
    tensors, old = read_tensors(path)
    write_tensors(path, tensors, {**old, **header})


@pytest.mark.parametrize("form", FORMS)
def test_round_trip(lend: Any, tmp_path: Path, form: str) -> None:
    artifact = replace(
        noisy(lend("qwen2"), form, positions=Positions("after_prefix", 4)),
        origin={"objective": {"name": "split", "gamma": 3.5}, "concept": "Freude é 心", "config": {"lr": 0.01}},
    )
    path = artifact.save(tmp_path / "new" / "folder")
    assert path.name == "layer_1.safetensors"
    for where in (path, path.parent, str(path.parent)):
        back = SteeringArtifact.load(where)
        assert (back.form, back.site, back.positions) == (form, artifact.site, artifact.positions)
        assert (back.model, back.origin) == (artifact.model, artifact.origin)
        assert all(torch.equal(v, back.delta.tensors()[k]) for k, v in artifact.delta.tensors().items())
        assert not any(p.requires_grad for p in back.delta.parameters())


def test_the_header_is_json_that_says_what_the_change_is(saved: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(saved), framework="pt") as file:
        header = json.loads(file.metadata()["easyedit_split"])["header"]
    assert header["format_version"] == 1
    assert header["form"] == "local_weight"
    assert header["site"] == {"layer": 1, "component": "mlp.down_proj"}
    assert header["model"]["architecture"] == "qwen2"
    assert (header["model"]["layers"], header["model"]["width"]) == (4, 32)


def test_saving_again_replaces_and_leaves_no_scraps(lend: Any, tmp_path: Path) -> None:
    first, second = noisy(lend("qwen2"), seed=1), noisy(lend("qwen2"), seed=2)
    first.save(tmp_path)
    second.save(tmp_path)
    assert torch.equal(SteeringArtifact.load(tmp_path).delta.tensors()["db"], second.delta.tensors()["db"])
    assert [p.name for p in tmp_path.iterdir()] == ["layer_1.safetensors"]


def test_a_write_that_fails_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError, match="could not be written .No space left on device.: free space"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_the_folder(lend: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="could not be written"):
        noisy(lend("qwen2")).save(tmp_path / "file" / "folder")


# --- EasyEdit's plain tensor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "form", "component", "written"),
    [
        ("qwen2", "vector", "mlp.down_proj", True),
        ("qwen2", "vector", "residual", True),
        ("gemma2", "vector", "residual", True),
        ("gemma2", "vector", "mlp.down_proj", False),  # the norm behind it: another change at the block's output
        ("qwen2", "vector", "self_attn.o_proj", False),
        ("qwen2", "lora", "mlp.down_proj", False),
    ],
)
def test_a_plain_tensor_is_written_where_it_means_the_same(
    lend: Any, tmp_path: Path, kind: str, form: str, component: str, written: bool
) -> None:
    model, ids = lend(kind), token_batch()
    artifact = noisy(model, form, component)
    artifact.save(tmp_path)
    plain = tmp_path / "layer_1.pt"
    assert plain.exists() == written
    if not written:
        return
    vector = torch.load(plain, weights_only=True)
    assert type(vector) is torch.Tensor and vector.shape == (32,)
    hook = (
        model.get_decoder()
        .layers[1]
        .register_forward_hook(
            lambda m, a, out: (out[0] + 2 * vector, *out[1:]) if isinstance(out, tuple) else out + 2 * vector
        )
    )
    expected = logits(model, ids)
    hook.remove()
    with artifact.attach(model, 2.0):
        assert_close(logits(model, ids), expected)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_another_architecture_depth_or_width_is_refused_and_both_are_named(saved: Path) -> None:
    artifact = SteeringArtifact.load(saved)
    for other, named in (
        (tiny_model("llama"), r"qwen2, 4 layers of width 32.* but the model is .*llama, 4 layers of width 32"),
        (tiny_model("qwen2", layers=3), r"4 layers of width 32.* but the model is .*3 layers of width 32"),
    ):
        for act in (artifact.attach, artifact.merge):
            with pytest.raises(ArtifactError, match=named):
                act(other, 1.0)
        assert not any(m._forward_hooks for m in other.modules())
    wider = replace(artifact, model={**artifact.model, "width": 64})
    with pytest.raises(ArtifactError, match="4 layers of width 64.* but the model is .*4 layers of width 32"):
        wider.attach(tiny_model("qwen2"), 1.0)


def test_a_description_with_gaps_still_makes_a_sentence(lend: Any, saved: Path) -> None:
    artifact = replace(SteeringArtifact.load(saved), model={"width": 64})
    with pytest.raises(ArtifactError, match="was made for .*width 64"):
        artifact.attach(lend("qwen2"), 1.0)


def test_a_folder_without_one_or_with_several(lend: Any, tmp_path: Path) -> None:
    for nowhere in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ArtifactError, match="does not hold an artifact: give the folder that train wrote"):
            SteeringArtifact.load(nowhere)
    model = lend("qwen2")
    noisy(model, layer=1).save(tmp_path)
    noisy(model, layer=3).save(tmp_path)
    with pytest.raises(ArtifactError, match="layer_1.safetensors, layer_3.safetensors: choose one with layer="):
        SteeringArtifact.load(tmp_path)
    assert SteeringArtifact.load(tmp_path, layer=3).site.layer == 3
    with pytest.raises(ArtifactError, match="does not hold layer_2.safetensors"):
        SteeringArtifact.load(tmp_path, layer=2)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="is broken .*: write it again"):
        SteeringArtifact.load(saved)


def test_every_flipped_byte_of_the_head_is_an_error_or_harmless(saved: Path) -> None:
    """Never another exception than ours, whatever byte of the header goes wrong."""
    data = bytearray(saved.read_bytes())
    for position in [*range(0, 16), *range(16, min(1400, len(data)), 23)]:
        broken = bytearray(data)
        broken[position] ^= 0x55
        saved.write_bytes(bytes(broken))
        try:
            SteeringArtifact.load(saved)
        except ArtifactError as error:
            assert "\n" not in str(error)


def test_numbers_that_are_not_finite(saved: Path) -> None:
    tensors, header = read_tensors(saved)
    tensors["db"][3] = float("nan")
    write_tensors(saved, tensors, header)
    with pytest.raises(ArtifactError, match="tensor 'db' holds numbers that are not finite"):
        SteeringArtifact.load(saved)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format_version": 3}, "has format version 3, this package reads 1 and 2"),
        ({"format_version": None}, "has format version None"),
        ({"form": "lora"}, "is broken .*needs the tensors A, B"),
        ({"form": ["lora"]}, "is broken"),
        ({"site": {"layer": "one", "component": "mlp.down_proj"}}, "is broken"),
        ({"site": {"layer": 1, "place": "x"}}, "is broken"),
        ({"site": None}, "is broken"),
        ({"positions": {"rule": "some", "prefix": 0}}, "is broken .*unknown positions"),
        ({"positions": {"rule": "all", "prefix": -2}}, "is broken"),
        ({"model": 3}, "is broken"),
    ],
)
def test_a_header_that_makes_no_sense(saved: Path, header: dict[str, Any], message: str) -> None:
    _rewrite(saved, **header)
    with pytest.raises(ArtifactError, match=message):
        SteeringArtifact.load(saved)


def test_a_safetensors_file_of_somebody_else(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"db": torch.zeros(3)}, str(tmp_path / "layer_1.safetensors"))
    with pytest.raises(ArtifactError, match="has no header of this package"):
        SteeringArtifact.load(tmp_path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save({"db": torch.zeros(3)}, tmp_path / "layer_1.safetensors")
    with pytest.raises(ArtifactError, match="is broken"):
        SteeringArtifact.load(tmp_path)


def test_the_description_of_a_model(lend: Any) -> None:
    one, other = describe_model(lend("gpt2")), describe_model(tiny_model("gpt2", layers=3))
    assert (one["architecture"], one["layers"], one["width"], one["norm_after_mlp"]) == ("gpt2", 4, 32, False)
    assert one["fingerprint"] != other["fingerprint"]
    assert describe_model(lend("gemma3_text"))["norm_after_mlp"] is True
