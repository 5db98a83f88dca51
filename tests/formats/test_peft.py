"""PEFT adapters: law 2 through `peft` itself, both ways; what does not fit in an adapter is refused or said."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import assert_close, logits, noisy
from tiny import ARCHITECTURES, MAIN, random_delta, token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import make_delta
from easyedit_split.changes.lowrank import factorised
from easyedit_split.changes.positions import Positions
from easyedit_split.errors import ArtifactError, ConfigError, NotMergeableError
from easyedit_split.formats.peft import to_peft
from easyedit_split.models.sites import Site
from easyedit_split.storage.files import write_safetensors

# peft itself reads a property that transformers has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
STRENGTHS = (1.0, 2.5, -1.5)
COMPONENTS = ("mlp.down_proj", "mlp.up_proj", "self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj")


def served(model: Any, folder: Path, merged: bool = False) -> torch.Tensor:
    """Logits of `folder`'s adapter on a copy of `model`, as PEFT serves it."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()
    assert not wrapped.peft_config["default"].layers_to_transform
    return logits(wrapped.merge_and_unload() if merged else wrapped, token_batch())


@pytest.mark.parametrize("m", STRENGTHS)
@pytest.mark.parametrize("kind", MAIN)
def test_hooked_is_merged_is_reloaded_is_adapter(lend: Any, tmp_path: Path, kind: str, m: float) -> None:
    """Law 2."""
    model, ids = lend(kind), token_batch()
    artifact = noisy(model, "lora")
    plain = logits(model, ids)
    with artifact.attach(model, m):
        hooked = logits(model, ids)
    assert (hooked - plain).abs().max() > 1e-3 * plain.abs().max()
    edit = artifact.merge(model, m)
    merged = logits(model, ids)
    edit.undo()
    artifact.save(tmp_path / "own")
    with SteeringArtifact.load(tmp_path / "own").attach(model, m):
        reloaded = logits(model, ids)
    done = artifact.to_peft(tmp_path / "peft", m)
    assert (done.rank, done.relative_error, done.energy) == (3, 0.0, 1.0)
    for found in (merged, reloaded, served(model, tmp_path / "peft"), served(model, tmp_path / "peft", merged=True)):
        assert_close(found, hooked)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_site_of_every_architecture(lend: Any, tmp_path: Path, kind: str, component: str) -> None:
    """Fused projections too: there the adapter covers the whole module and is zero on the other rows."""
    model = lend(kind)
    artifact = noisy(model, "lora", component)
    with artifact.attach(model, 1.5):
        hooked = logits(model, token_batch())
    to_peft(artifact, tmp_path, 1.5, model=model)
    assert_close(served(model, tmp_path), hooked)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_known_layouts_are_the_models_own(lend: Any, tmp_path: Path, kind: str) -> None:
    """Without the model, the path from the table equals the one looked up; fused parts ask for the model."""
    model = lend(kind)
    for component in COMPONENTS:
        artifact = noisy(model, "lora", component)
        to_peft(artifact, tmp_path / "with", model=model)
        with_model = json.loads((tmp_path / "with/adapter_config.json").read_text())
        try:
            to_peft(artifact, tmp_path / "without")
        except ConfigError as error:
            assert "pass model=" in str(error)
            assert artifact.resolve(model).rows is not None
            continue
        assert json.loads((tmp_path / "without/adapter_config.json").read_text()) == with_model


def test_the_written_scale_is_m(lend: Any, tmp_path: Path) -> None:
    """lora_alpha / r = |m|; the sign is in B, so that no reader meets a negative alpha."""
    artifact = noisy(lend("qwen2"), "lora")
    for m in (0.5, 1.0, -4.0, 37.25):
        artifact.to_peft(tmp_path, m)
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        assert config["r"] == 3
        assert config["lora_alpha"] / config["r"] == pytest.approx(abs(m), rel=1e-12)
        assert config["target_modules"] == ["model.layers.1.mlp.down_proj"]


@pytest.mark.parametrize("m", [1.0, -2.0])
def test_round_trip_gives_the_change_at_strength_m(lend: Any, tmp_path: Path, m: float) -> None:
    artifact = noisy(lend("qwen2"), "lora")
    artifact.to_peft(tmp_path, m)
    back = SteeringArtifact.from_peft(tmp_path)
    assert isinstance(back, SteeringArtifact)
    assert (back.form, back.site, back.model) == ("lora", artifact.site, artifact.model)
    assert_close(back.delta.weight(), m * artifact.delta.weight(), 1e-6)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_an_adapter_made_by_peft_is_read(lend: Any, tmp_path: Path, kind: str) -> None:
    """PEFT writes it over two modules of two layers; our artifacts attached at m = 1 give its logits."""
    from peft import LoraConfig, get_peft_model

    model = lend(kind)
    names = {"qwen2": ["down_proj", "q_proj"], "gpt2": ["mlp.c_proj", "c_attn"]}[kind]
    config = LoraConfig(
        r=4, lora_alpha=10, target_modules=names, layers_to_transform=[1, 2], fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM", init_lora_weights=False, use_rslora=kind == "gpt2",
        alpha_pattern={"down_proj": 3} if kind == "qwen2" else {},
    )  # fmt: skip
    torch.manual_seed(0)
    wrapped = get_peft_model(copy.deepcopy(model), config).eval()
    expected = logits(wrapped, token_batch())
    wrapped.save_pretrained(str(tmp_path))
    found = SteeringArtifact.from_peft(tmp_path)
    assert isinstance(found, list)
    assert [a.site.layer for a in found] == [1, 1, 2, 2]
    assert "mlp.down_proj" in {a.site.component for a in found}
    handles = [a.attach(model, 1.0) for a in found]
    try:
        assert_close(logits(model, token_batch()), expected)
    finally:
        for handle in handles:
            handle.remove()


def without_db(artifact: SteeringArtifact) -> SteeringArtifact:
    artifact.delta.db.data.zero_()  # type: ignore[operator,union-attr]
    return artifact


def test_local_weight_at_full_rank_is_exact(lend: Any, tmp_path: Path) -> None:
    for kind in MAIN:
        model = lend(kind)
        artifact = without_db(noisy(model, "local_weight"))
        with artifact.attach(model, 1.5):
            hooked = logits(model, token_batch())
        done = artifact.to_peft(tmp_path, 1.5, energy=1.0, bias="drop")
        assert done.rank == 32
        assert done.relative_error == 0.0
        assert_close(served(model, tmp_path), hooked)


def test_local_weight_reports_what_it_lost(lend: Any, tmp_path: Path) -> None:
    artifact = noisy(lend("qwen2"), "local_weight")
    dw = artifact.delta.weight()
    s = torch.linalg.svdvals(dw.double())
    done = artifact.to_peft(tmp_path, rank=5, bias="drop")
    back = SteeringArtifact.from_peft(tmp_path)
    assert isinstance(back, SteeringArtifact)
    lost = (back.delta.weight() - dw).norm() / dw.norm()
    assert done.relative_error == pytest.approx(float(lost), rel=1e-5)
    assert done.energy == pytest.approx(float(s[:5].square().sum() / s.square().sum()), rel=1e-9)
    by_energy = artifact.to_peft(tmp_path, energy=0.9, bias="drop")
    kept = s.square().cumsum(0) / s.square().sum()
    assert by_energy.rank == int((kept < 0.9).sum()) + 1
    assert by_energy.energy >= 0.9


def test_a_matrix_of_low_rank_is_found_to_be_one() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(20, 3, generator=generator) @ torch.randn(3, 30, generator=generator)
    found = factorised(matrix, energy=1 - 1e-10)
    assert found.rank == 3
    assert_close(found.B @ found.A, matrix, 1e-6)
    assert factorised(torch.zeros(4, 5), energy=0.5).relative_error == 0.0


@pytest.mark.parametrize("form", ["vector", "local_weight"])
def test_db_goes_as_lora_bias(lend: Any, tmp_path: Path, form: str) -> None:
    """GPT-2 has a bias to merge into; on a layer without one PEFT still serves it, and warns about merging."""
    for kind in ("gpt2", "qwen2"):
        model = lend(kind)
        artifact = noisy(model, form)
        with artifact.attach(model, -2.0):
            hooked = logits(model, token_batch())
        full = {"energy": 1.0} if form == "local_weight" else {}
        to_peft(artifact, tmp_path / kind, -2.0, model=model, bias="lora_bias", **full)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*lora_bias.*")
            assert_close(served(model, tmp_path / kind), hooked)
        back = SteeringArtifact.from_peft(tmp_path / kind)
        assert isinstance(back, SteeringArtifact)
        assert back.form == form
        with back.attach(model, 1.0):
            assert_close(logits(model, token_batch()), hooked)


def test_a_residual_vector_goes_to_the_last_linear_map(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    artifact = noisy(model, "vector", "residual")
    with artifact.attach(model, 2.0):
        hooked = logits(model, token_batch())
    to_peft(artifact, tmp_path, 2.0, model=model, bias="lora_bias")
    assert_close(served(model, tmp_path), hooked)
    with pytest.raises(NotMergeableError, match="behind a norm"):
        to_peft(noisy(lend("gemma2"), "vector", "residual"), tmp_path, model=lend("gemma2"), bias="lora_bias")


@pytest.mark.parametrize(
    ("form", "options", "error", "message"),
    [
        ("local_weight", {"rank": 2}, NotMergeableError, "no place for the db.*bias='lora_bias'.*bias='drop'"),
        ("vector", {}, NotMergeableError, "no place for the db"),
        ("vector", {"bias": "drop"}, NotMergeableError, "nothing would be left"),
        ("vector", {"bias": "lora_bias"}, ConfigError, "pass model="),
        ("local_weight", {"bias": "drop"}, ConfigError, "rank=, or energy="),
        ("local_weight", {"bias": "drop", "rank": 2, "energy": 0.5}, ConfigError, "rank=, or energy="),
        ("local_weight", {"bias": "drop", "rank": 99}, ConfigError, "rank 99 .* 1 to 32"),
        ("local_weight", {"bias": "drop", "energy": 1.5}, ConfigError, "energy = 1.5"),
        ("lora", {"rank": 2}, ConfigError, "are for the local weight"),
        ("lora", {"bias": "maybe"}, ConfigError, "'maybe' is unknown"),
        ("lora", {"m": 0.0}, ConfigError, "m = 0 is the unsteered model"),
        ("lora", {"m": float("nan")}, ConfigError, "not a finite number"),
    ],
)
def test_what_does_not_fit_is_refused(
    lend: Any, tmp_path: Path, form: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        noisy(lend("qwen2"), form).to_peft(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_positions_are_refused(lend: Any, tmp_path: Path) -> None:
    with pytest.raises(NotMergeableError, match="'answer' only"):
        noisy(lend("qwen2"), "lora", positions=Positions("answer")).to_peft(tmp_path)


def test_an_unknown_architecture_asks_for_the_model(tmp_path: Path) -> None:
    delta = random_delta(make_delta("lora", 8, 8, 2))
    artifact = SteeringArtifact(delta, Site(3), model={"architecture": "novel"})
    with pytest.raises(ConfigError, match="layer 3, mlp.down_proj in novel is not known: pass model="):
        artifact.to_peft(tmp_path)


def _adapter(folder: Path, changes: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> None:
    key = "base_model.model.model.layers.1.mlp.down_proj"
    parts = {f"{key}.lora_A.weight": torch.ones(2, 4), f"{key}.lora_B.weight": torch.ones(3, 2)}
    write_safetensors(folder / "adapter_model.safetensors", parts if tensors is None else tensors, {"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["down_proj"], **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "kind 'IA3'"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_alpha": "many"}, "scale"),
        ({"lora_alpha": float("inf")}, "scale"),
    ],
)
def test_other_adapters_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _adapter(tmp_path, changes)
    with pytest.raises(ArtifactError, match=message):
        SteeringArtifact.from_peft(tmp_path)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("base_model.model.lm_head", {"lora_A.weight": (2, 4), "lora_B.weight": (3, 2)}, "not in a decoder block"),
        ("base_model.model.model.layers.1.a", {"lora_A.weight": (2, 4)}, "lacks a matrix"),
        ("base_model.model.model.layers.1.a", {"lora_A.weight": (2, 4), "lora_B.weight": (3, 3)}, "lora_B"),
        ("base_model.model.model.layers.1.a", {"lora_embedding_A": (2, 4)}, "no part of a LoRA"),
        ("base_model.model.model.layers.1.../etc", {"lora_A.weight": (2, 4), "lora_B.weight": (3, 2)}, "decoder block"),
        ("base_model.model.model.layers.1.a", {}, "no tensors"),
    ],
)
def test_broken_adapters_are_refused(
    tmp_path: Path, name: str, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    _adapter(tmp_path, {}, {f"{name}.{ending}": torch.ones(shape) for ending, shape in shapes.items()})
    with pytest.raises(ArtifactError, match=message):
        SteeringArtifact.from_peft(tmp_path)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    _adapter(tmp_path, {})
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="adapter_model.safetensors does not exist"):
        SteeringArtifact.from_peft(tmp_path)
