"""Vectors and adapters of other programs: read as they were meant, refused with the reason, never unpickled."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import MIXED, TEXT_PAIRS, assert_close, joint, logits, noisy
from safetensors.torch import save_file
from test_calibrate import model as model  # noqa: PLC0414
from tiny import token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.cli import main
from easyedit_split.easyedit.artifacts import write_pt
from easyedit_split.errors import ArtifactError, ConfigError, SiteError
from easyedit_split.formats.gguf import to_gguf
from easyedit_split.importing import parse_site, read_change

WIDTH = 32


def vector(seed: int = 0) -> torch.Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def db(artifact: SteeringArtifact) -> torch.Tensor:
    found = artifact.delta.bias_term()
    assert found is not None
    return found


def _write(path: Path, value: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, value.numpy())
    elif path.suffix == ".safetensors":
        save_file({"v": value}, path)
    else:
        torch.save(value, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (1, 1, WIDTH)])
def test_a_bare_vector(lend: Any, tmp_path: Path, suffix: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Attached at m, it is m times the vector added to the block's output."""
    model, ids = lend("llama"), token_batch()
    value = vector().to(dtype)
    artifact = read_change(_write(tmp_path / f"v{suffix}", value.reshape(shape)), "2", model=model)
    assert (artifact.form, str(artifact.site)) == ("vector", "layer 2, residual")
    assert torch.equal(db(artifact), value.float())
    hook = model.model.layers[2].register_forward_hook(lambda module, args, out: out + 1.5 * value.float())
    by_hand = logits(model, ids)
    hook.remove()
    with artifact.attach(model, 1.5):
        assert_close(logits(model, ids), by_hand)


def test_a_site_with_a_component(lend: Any, tmp_path: Path) -> None:
    artifact = read_change(_write(tmp_path / "v.pt", vector()), "1:mlp.down_proj", model=lend("qwen2"))
    assert str(artifact.site) == "layer 1, mlp.down_proj"
    assert artifact.model["weights"]  # the model is known again
    assert parse_site("14") == (14, None) and parse_site("3:self_attn.o_proj") == (3, "self_attn.o_proj")
    for wrong in ("", "x", "-1", "3:", "1.5", "mlp"):
        with pytest.raises(ConfigError, match="is no place: write LAYER"):
            parse_site(wrong)


def test_several_in_one_file(tmp_path: Path) -> None:
    rows = torch.stack([vector(0), vector(1)])
    path = _write(tmp_path / "v.pt", rows)
    assert torch.equal(db(read_change(path, "2", "1")), rows[1])
    with pytest.raises(ConfigError, match=r"holds 2 changes \(0, 1\), and one site takes one: choose it with --pick"):
        read_change(path, "2")
    with pytest.raises(ConfigError, match="holds no 'x' but 0, 1"):
        read_change(path, "2", "x")
    named = _write(tmp_path / "w.pt", {"layer_1": vector(1), "layer_3": vector(3)})
    assert torch.equal(db(read_change(named, "3")), vector(3))
    assert read_change(named, "3").site.layer == 3
    both = read_change(named)
    assert str(both.site) == "layers 1 and 3, residual" and both.origin["imported"]["held"] == "layer_1, layer_3"
    assert [torch.equal(db(part), vector(k)) for part, k in zip(both.parts, (1, 3), strict=True)] == [True, True]
    uneven = _write(tmp_path / "u.pt", {"layer_1": vector(1), "layer_2": rows})
    with pytest.raises(ConfigError, match=r"holds 3 changes .* choose it with --pick NAME"):
        read_change(uneven)
    with pytest.raises(ConfigError, match="holds nothing for layer 2 but for 1, 3"):
        read_change(named, "2")


@pytest.mark.parametrize("form", ["vector", "lora", "local_weight"])
def test_easyedit_s_file(lend: Any, tmp_path: Path, form: str) -> None:
    model, ids = lend("qwen2"), token_batch()
    artifact = noisy(model, form, "residual" if form == "vector" else "mlp.down_proj", layer=2)
    back = read_change(write_pt(artifact, tmp_path))
    with artifact.attach(model, 2.0):
        expected = logits(model, ids)
    with back.attach(model, 2.0):
        assert_close(logits(model, ids), expected)


def test_easyedit_s_concepts(tmp_path: Path) -> None:
    path = _write(tmp_path / "layer_2.pt", {0: vector(0), 7: vector(7)})
    found = read_change(path, pick="7")
    assert torch.equal(db(found), vector(7)) and found.site.layer == 2


def test_a_control_vector(lend: Any, tmp_path: Path) -> None:
    artifacts = [noisy(lend("qwen2"), "vector", "residual", layer=k, seed=k) for k in (1, 3)]
    path = to_gguf(artifacts, tmp_path / "v.gguf")
    assert torch.equal(db(read_change(path, "3")), db(artifacts[1]))
    model, ids = lend("qwen2"), token_batch()
    with artifacts[0].attach(model, 1.5), artifacts[1].attach(model, 1.5):
        expected = logits(model, ids)
    with read_change(path, model=model).attach(model, 1.5):  # one change, one strength
        assert torch.equal(logits(model, ids), expected)
    with pytest.raises(ConfigError, match="was made for residual, not for mlp.down_proj"):
        read_change(path, "3:mlp.down_proj")


def test_an_adapter_of_several_modules(lend: Any, tmp_path: Path) -> None:
    model, ids = lend("qwen2"), token_batch()
    artifact = joint(model, places=MIXED)
    artifact.to_peft(tmp_path, 1.5)
    with artifact.attach(model, 1.5):
        expected = logits(model, ids)
    with read_change(tmp_path, model=model).attach(model, 1.0):
        assert_close(logits(model, ids), expected)
    assert str(read_change(tmp_path, "1:mlp.down_proj").site) == "layer 1, mlp.down_proj"


def test_an_adapter(lend: Any, tmp_path: Path) -> None:
    artifact = noisy(lend("qwen2"), "lora", layer=2)
    artifact.to_peft(tmp_path / "adapter", 1.5)
    for path in (tmp_path / "adapter", tmp_path / "adapter" / "adapter_model.safetensors"):
        back = read_change(path)
        assert back.site == artifact.site
        a, b = back.delta.weight(), artifact.scaled(1.5).delta.weight()
        assert a is not None and b is not None and bool((a - b).abs().max() < 1e-6)


class _Exploding:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("run"), "this ran"))


@pytest.mark.parametrize("name", ["v.pt", "v.bin", "v.pkl", "v.npy"])
def test_nothing_in_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if name.endswith((".pt", ".bin")):
        torch.save({"v": _Exploding()}, path)
    elif name.endswith(".npy"):
        np.save(path, np.array([_Exploding()], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(_Exploding()))
    with pytest.raises(ArtifactError):
        read_change(path, "1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "contained"),
    [
        (torch.full((WIDTH,), float("nan")), "not finite"),
        (torch.full((WIDTH,), 1e300, dtype=torch.float64), "not finite in float32"),
        (torch.ones(WIDTH, dtype=torch.int64), "is of kind int64: a vector is of floating-point numbers"),
        (torch.ones(()), "a vector has one dimension"),
        (torch.ones(0), "one number or more"),
        ({"v": "text"}, "holds a str under 'v'"),
        ({}, "holds a dict, not a vector"),
        (3.5, "holds a float, not a vector"),
        ({"weight": torch.ones(2, WIDTH), "bias": torch.ones(2), "rotate_layer": torch.ones(WIDTH, 2)}, "LoReFT"),
    ],
)
def test_what_is_no_vector(tmp_path: Path, value: Any, contained: str) -> None:
    torch.save(value, tmp_path / "v.pt")
    with pytest.raises(ArtifactError, match=contained) as error:
        read_change(tmp_path / "v.pt", "1")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(lend: Any, tmp_path: Path) -> None:
    model = lend("qwen2")
    for name, content in (("a.pt", b"x" * 50), ("a.npy", b"x" * 50), ("a.safetensors", b"x" * 50), ("a.gguf", b"GGUF")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=name):
            read_change(tmp_path / name, "1")
    with pytest.raises(ArtifactError, match="is of no kind that is read"):
        read_change(_write(tmp_path / "b.pt", vector()).rename(tmp_path / "b.xyz"), "1")
    with pytest.raises(ArtifactError, match="does not exist"):
        read_change(tmp_path / "none.pt", "1")
    with pytest.raises(ArtifactError, match="is no PEFT adapter"):
        read_change(tmp_path, "1")
    with pytest.raises(ArtifactError, match="is an artifact of this package already"):
        read_change(noisy(model).save(tmp_path), "1")
    with pytest.raises(ConfigError, match="does not say which layer"):
        read_change(_write(tmp_path / "c.pt", vector()))
    with pytest.raises(SiteError, match="the change is 7 but layer 1, residual of this model is 32"):
        read_change(_write(tmp_path / "d.pt", torch.ones(7)), "1", model=model)


def test_a_vector_of_steering_vectors(lend: Any, tmp_path: Path) -> None:
    """Saved by torch.save as its users do; the same logits as in that package."""
    package = pytest.importorskip("steering_vectors", reason="pip install --no-deps steering-vectors")
    model, ids = lend("llama"), token_batch()
    for kind, layer in (("decoder_block", 2), ("mlp", 1), ("self_attn", 1)):
        theirs = package.SteeringVector({layer: vector(4), 3: vector(5)}, kind)
        torch.save(theirs, tmp_path / f"{kind}.pt")
        alone = dataclasses.replace(theirs, layer_activations={layer: vector(4)})
        with torch.no_grad(), alone.apply(model, multiplier=1.5):
            expected = logits(model, ids)
        artifact = read_change(tmp_path / f"{kind}.pt", str(layer), model=model)
        with artifact.attach(model, 1.5):
            assert_close(logits(model, ids), expected)
        with torch.no_grad(), theirs.apply(model, multiplier=1.5):
            expected = logits(model, ids)
        with read_change(tmp_path / f"{kind}.pt", model=model).attach(model, 1.5):  # both layers, one multiplier
            assert_close(logits(model, ids), expected)
    torch.save(package.SteeringVector({1: vector()}, "input_layernorm"), tmp_path / "norm.pt")
    with pytest.raises(ArtifactError, match="added behind 'input_layernorm', which is no linear map"):
        read_change(tmp_path / "norm.pt")


def test_a_vector_of_repeng(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported by repeng itself; the same logits as in its ControlModel."""
    from tiny import tiny_model

    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4 names it, NumPy 2 does not have it
    package = pytest.importorskip("repeng", reason="pip install --no-deps repeng")
    model, ids = tiny_model("llama"), token_batch(rows=1)  # repeng takes no positions shared by several rows
    theirs = package.ControlVector("llama", {k: vector(k).numpy() for k in (1, 2)})
    theirs.export_gguf(tmp_path / "v.gguf")
    artifact = read_change(tmp_path / "v.gguf", "2", model=model)
    with artifact.attach(model, 1.5):
        ours = logits(model, ids)
    with read_change(tmp_path / "v.gguf", model=model).attach(model, 1.5):
        together = logits(model, ids)
    for layers, found in (([2], ours), ([1, 2], together)):
        control = package.ControlModel(model, layers)
        control.set_control(theirs, 1.5)
        expected = logits(control, ids)
        control.unwrap()
        assert_close(found, expected)


def test_the_commands(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Imported, swept and checked: the exit status is whether the vector gains what was asked for."""
    import json

    from easyedit_split import load_model
    from easyedit_split.sweeps.run import sweep

    pairs, file, out = tmp_path / "pairs.jsonl", _write(tmp_path / "v.npy", vector()), tmp_path / "run"
    rows = [{"question": p.question, "matching": p.matching, "not_matching": p.not_matching} for p in TEXT_PAIRS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = f"model_name_or_path={model}"
    assert main(["import", str(file), "--site", "2", "--out", str(out), named]) == 0
    assert f"vector of width 32 at layer 2, residual -> {out / 'layer_2.safetensors'}" in capsys.readouterr().out
    _write(tmp_path / "w.npy", vector(1))
    assert main(["import", str(tmp_path / "w.npy"), "--site", "2", "--out", str(out)]) == 2
    assert "is of another run" in capsys.readouterr().err

    loaded, tokenizer = load_model(model)
    table = sweep(loaded, tokenizer, TEXT_PAIRS, SteeringArtifact.load(out), [0.0, 0.5], "sum")
    preference, utility = table.preference().mean(axis=1), table.utility().mean(axis=1)
    gain, loss = preference[1] - preference[0], utility[0] - utility[1]
    ask = ["check", str(out), "--pairs", str(pairs), "-m", "0.5", named, "--max-utility-drop", str(max(loss, 0) + 0.01)]
    assert main([*ask, "--gain", str(gain - 0.01)]) == 0
    assert "passed: m = 0.5 gains" in capsys.readouterr().out
    assert main([*ask, "--gain", str(gain + 0.01)]) == 1
    assert "failed: m = 0.5 gains" in capsys.readouterr().out
    foreign = ["check", str(file), "--site", "2", "--pairs", str(pairs), named, "--gain", "-100"]
    assert main(foreign) == 0  # without a strength the best one within the budget; 0 gains 0 and costs nothing
    assert main([*foreign, "--gain", "1e6"]) == 1
    assert main(["check", str(out), "--site", "1", "--pairs", str(pairs), named]) == 2
