"""Training and applying at EasyEdit's border, against a stand-in (see tests/host/standin.py), and its result files.

The same behaviour inside real checkouts is in tests/host/checks.py.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from host.standin import LAYOUTS, write_standin
from laws import joint
from tiny import random_delta, tiny_model, tiny_tokenizer

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.calibration import Calibration
from easyedit_split.changes.forms import make_delta
from easyedit_split.easyedit import registration
from easyedit_split.easyedit.apply import apply_vectors
from easyedit_split.easyedit.artifacts import from_state, read_folder, read_pt, to_state, write_pt
from easyedit_split.easyedit.data import concept_pairs
from easyedit_split.easyedit.generate import generate_vectors
from easyedit_split.easyedit.host import plain_model, wrapped_blocks
from easyedit_split.errors import ArtifactError, ConfigError, DataError, HostError
from easyedit_split.models.sites import Site

pytest.importorskip("omegaconf", reason="the plugin needs the extra: pip install easyedit-split[easyedit]")
FORMS = ("vector", "lora", "local_weight")
ITEMS = [
    {"question": "Is it?", "matching": "Yes", "not_matching": "No"},
    {"question": "Is it not?", "matching": "Maybe", "not_matching": "Never"},
]


@pytest.fixture(params=LAYOUTS)
def wrapper(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in wrapper round a tiny Qwen2, with our methods registered."""
    monkeypatch.syspath_prepend(str(write_standin(tmp_path / "host", request.param)))
    registration.register()
    module = importlib.import_module("steer.models.model_wrapper")
    yield module.BaseModelWrapper(tiny_model("qwen2"), tiny_tokenizer())
    registration._hook.remove()
    for name in [n for n in sys.modules if n == "steer" or n.startswith("steer.")]:
        del sys.modules[name]


def shell(phase: str, **values: Any) -> Any:
    return importlib.import_module("steer.utils.alg_dict").HYPERPARAMS_CLASS_DICT["split"][phase](**values)


def change(form: str, layer: int = 2, seed: int = 1) -> SteeringArtifact:
    return SteeringArtifact(random_delta(make_delta(form, 48, 32, 3), 0.3, seed), Site(layer))


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(40, 60).view(2, 10)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("form", FORMS)
def test_steering_in_the_wrapper_is_steering_the_model(wrapper: Any, form: str) -> None:
    artifact, model = change(form), tiny_model("qwen2")
    plain, before = logits(wrapper.model), hooks(wrapper.model)
    for _ in range(2):  # the second time replaces the first
        apply_vectors(shell("apply", layers=[2], multipliers=[1.5]), wrapper, {"layer_2": artifact})
    with artifact.attach(model, 1.5):
        assert torch.allclose(logits(wrapper.model), logits(model), atol=1e-5)
    assert not torch.equal(logits(wrapper.model), plain)
    wrapper.reset("split")
    assert torch.equal(logits(wrapper.model), plain)
    assert hooks(wrapper.model) == before


def test_original_output_is_unsteered_and_steering_resumes(wrapper: Any) -> None:
    ids, options = torch.arange(40, 50)[None], {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    before = wrapper.model.generate(input_ids=ids, **options)
    apply_vectors(shell("apply", layers=[2], multipliers=[8.0]), wrapper, {"layer_2": change("local_weight")})
    steered = wrapper.model.generate(input_ids=ids, **options)
    assert not torch.equal(steered, before)
    assert torch.equal(wrapper.ori_generate(ids, **options), before)
    assert torch.equal(wrapper.model.generate(input_ids=ids, **options), steered)


def test_taking_the_token_away_switches_steering_off(wrapper: Any) -> None:
    """The hook obeys EasyEdit's dictionary, and another object under the same name is not our token."""
    plain, block = logits(wrapper.model), wrapped_blocks(wrapper)[1]
    apply_vectors(shell("apply", layers=[1], multipliers=[2.0]), wrapper, {"layer_1": change("vector", 1)})
    steered, token = logits(wrapper.model), block.intervention_dict.pop("split")
    assert torch.equal(logits(wrapper.model), plain)
    block.intervention_dict["split"] = token
    assert torch.equal(logits(wrapper.model), steered)


def test_other_methods_are_reset_as_before(wrapper: Any) -> None:
    block = wrapped_blocks(wrapper)[0]
    block.add_activations_dict["caa"] = torch.ones(32)
    apply_vectors(shell("apply", layers=[0], multipliers=[1.0]), wrapper, {"layer_0": change("lora", 0)})
    wrapper.reset("caa")
    assert not block.add_activations_dict and list(block.intervention_dict) == ["split"]
    wrapper.reset_all()
    assert not block.intervention_dict
    with pytest.raises(ValueError, match="not supported"):
        wrapper.reset("nonsense")


def test_plain_model_is_the_model_and_everything_is_put_back(wrapper: Any) -> None:
    before = [type(m).__name__ for m in wrapper.model.modules()]
    with pytest.raises(RuntimeError, match="stop"), plain_model(wrapper) as model:
        assert not any("Wrapper" in type(m).__name__ for m in model.modules())
        assert torch.equal(logits(model), logits(tiny_model("qwen2")))
        raise RuntimeError("stop")
    assert [type(m).__name__ for m in wrapper.model.modules()] == before


class Hack_no_grad(torch.nn.Module):  # noqa: N801
    """What EasyEdit's lm_steer puts round the decoder, by name and attribute."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def test_a_decoder_frozen_by_lm_steer_is_steered_too(wrapper: Any) -> None:
    artifact, model = change("lora"), tiny_model("qwen2")
    frozen = wrapper.model.model = Hack_no_grad(wrapper.model.model)
    apply_vectors(shell("apply", layers=[2], multipliers=[1.5]), wrapper, {"layer_2": artifact})
    assert wrapper.model.model is frozen
    with artifact.attach(model, 1.5):
        assert torch.allclose(logits(wrapper.model), logits(model), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_training_writes_what_applying_reads(wrapper: Any, form: str, tmp_path: Path) -> None:
    made = shell(
        "train", layers=[1, 2], intervention_method=form, n_epochs=1, exclude_bos=False, use_chat_template=True,
        steer_vector_output_dir=str(tmp_path),
    )  # fmt: skip
    vectors = generate_vectors(made, ITEMS, "mine", wrapper)
    assert list(vectors) == ["layer_1", "layer_2"]
    folder = tmp_path / f"split_{form}"
    apply_vectors(shell("apply", layers=[1, 2], multipliers=[1.0, 2.0], steer_vector_load_dir=str(folder)), wrapper)
    from_disk = logits(wrapper.model)
    apply_vectors(shell("apply", layers=[1, 2], multipliers=[1.0, 2.0]), wrapper, vectors)
    assert torch.equal(logits(wrapper.model), from_disk)
    assert (folder / "layer_1.pt").exists() is (form == "vector")


@pytest.mark.parametrize("form", FORMS)
def test_layers_trained_together_have_a_multiplier_each(wrapper: Any, form: str, tmp_path: Path) -> None:
    """One file of ours; in memory and from the folder EasyEdit takes it apart, each layer at its own strength."""
    made = shell(
        "train", layers=[1, 2], joint=True, intervention_method=form, n_epochs=1, exclude_bos=False,
        use_chat_template=True, steer_vector_output_dir=str(tmp_path),
    )  # fmt: skip
    vectors = generate_vectors(made, ITEMS, "mine", wrapper)
    folder = tmp_path / f"split_{form}"
    plain = [f"layer_{layer}.pt" for layer in (1, 2)] if form == "vector" else []
    assert sorted(p.name for p in folder.iterdir()) == ["layer_1-2.safetensors", *plain]
    apply_vectors(shell("apply", layers=[1, 2], multipliers=[1.0, 2.0]), wrapper, vectors)
    steered = logits(wrapper.model)
    apply_vectors(shell("apply", layers=[1, 2], multipliers=[1.0, 2.0], steer_vector_load_dir=str(folder)), wrapper)
    assert torch.equal(logits(wrapper.model), steered)
    wrapper.reset_all()
    with plain_model(wrapper) as model, SteeringArtifact.load(folder).attach(model, {1: 1.0, 2: 2.0}):
        expected = logits(model)
    assert torch.allclose(steered, expected, atol=1e-5)
    apply_vectors(shell("apply", layers=[2], multipliers=[2.0], steer_vector_load_dir=str(folder)), wrapper)
    assert not torch.equal(logits(wrapper.model), steered)
    with pytest.raises(ConfigError, match="2 layers but 1 multipliers; give one a layer"):
        apply_vectors(shell("apply", layers=[1, 2], multipliers=[2.0], steer_vector_load_dir=str(folder)), wrapper)
    with pytest.raises(ArtifactError, match="has nothing for layer 3, it holds layer_1-2.safetensors"):
        read_folder(folder, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["unified_sft", "unified_reps", "unified_diffmean"])
def test_the_baselines_train_and_apply(wrapper: Any, method: str, form: str, tmp_path: Path) -> None:
    if method == "unified_diffmean" and form != "vector":
        pytest.skip("DiffMean is a vector")
    registry = importlib.import_module("steer.utils.alg_dict")
    phases = registry.HYPERPARAMS_CLASS_DICT[method]
    made = phases["train"](
        layers=[1], intervention_method=form, n_epochs=1, steer_vector_output_dir=str(tmp_path), use_chat_template=True
    )
    registry.METHODS_CLASS_DICT[method]["train"](made, ITEMS, dataset_name="mine", model=wrapper)
    plain = logits(wrapper.model)
    folder = str(tmp_path / f"{method}_{form}")
    chosen = phases["apply"](layers=[1], multipliers=[2.0], steer_vector_load_dir=folder)
    registry.METHODS_CLASS_DICT[method]["apply"](chosen, wrapper)
    assert not torch.equal(logits(wrapper.model), plain)
    wrapper.reset(method)
    assert torch.equal(logits(wrapper.model), plain)


def test_float32_changes_steer_a_bfloat16_model(wrapper: Any) -> None:
    wrapper.model.to(torch.bfloat16)
    plain = logits(wrapper.model)
    apply_vectors(shell("apply", layers=[2], multipliers=[3.0]), wrapper, {"layer_2": change("local_weight")})
    assert logits(wrapper.model).dtype == torch.bfloat16
    assert not torch.equal(logits(wrapper.model), plain)


def test_excluded_prefix_is_left_alone_in_training_and_application(wrapper: Any) -> None:
    """exclude_bos: the logits of the template's constant prefix do not move, those behind it do."""
    made = shell(
        "train", layers=[2], intervention_method="lora", n_epochs=1, save_vectors=False, use_chat_template=True
    )
    artifact = generate_vectors(made, ITEMS, "mine", wrapper)["layer_2"]
    prefix = artifact.positions.prefix
    assert artifact.positions.rule == "after_prefix" and prefix > 0
    plain = logits(wrapper.model)
    apply_vectors(shell("apply", layers=[2], multipliers=[5.0]), wrapper, {"layer_2": artifact})
    moved = (logits(wrapper.model) - plain).abs().amax(dim=(0, 2)) > 0
    assert moved.tolist() == [position >= prefix for position in range(10)]


def test_meaningless_settings_are_refused(wrapper: Any) -> None:
    classes = importlib.import_module("steer.utils.alg_dict").HYPERPARAMS_CLASS_DICT
    cases = [
        (classes["unified_sft"]["train"](layers=[1], neg_loss_weight=0.5), "neg_loss_weight = 0.5 has no meaning"),
        (classes["unified_diffmean"]["train"](layers=[1], intervention_method="lora"), "makes a vector"),
        (classes["split"]["train"](), "layers is empty"),
        (classes["split"]["train"](layers=[1], ref_loss_weight=0.5), "ref_loss_weight = 0.5 is not supported"),
        (classes["split"]["train"](layers=[1], intervention_type="clamping"), "intervention_type = 'clamping'"),
    ]
    for made, match in cases:
        with pytest.raises(ConfigError, match=match):
            generate_vectors(made, ITEMS, "mine", wrapper)


def test_what_is_no_wrapper_is_refused(wrapper: Any) -> None:
    with pytest.raises(HostError, match="pass the wrapper that EasyEdit's get_model returns"):
        generate_vectors(shell("train", layers=[1]), ITEMS, "mine", tiny_model("qwen2"))
    wrapper.VLLM_model = object()
    with pytest.raises(HostError, match="vllm_enable: false"):
        apply_vectors(shell("apply", layers=[1], multipliers=[1.0]), wrapper, {"layer_1": change("lora", 1)})


# EasyEdit's result files: expected matrices are written out by hand in its orientation


def test_lora_of_easyedit_is_transposed(tmp_path: Path) -> None:
    a, b = torch.randn(48, 3), torch.randn(3, 32)
    state = {"lora_A": a, "lora_B": b, "r": 3, "alpha": 3, "intervention_components": "mlp_mid", "concept_id": 0}
    torch.save(state, tmp_path / "layer_2.pt")
    artifact = read_folder(tmp_path, 2)
    x = torch.randn(5, 48)
    assert torch.allclose(artifact.delta(x), x @ a @ b, atol=1e-5)
    assert artifact.site == Site(2, "mlp.down_proj") and artifact.positions.rule == "all"


def test_local_weight_of_easyedit_is_transposed(tmp_path: Path) -> None:
    weight, bias = torch.randn(48, 32), torch.randn(32)
    torch.save({"weight": weight, "bias": bias, "intervention_components": "mlp_mid"}, tmp_path / "layer_0.pt")
    x = torch.randn(5, 48)
    assert torch.allclose(read_pt(tmp_path / "layer_0.pt", 0).delta(x), x @ weight + bias, atol=1e-5)


def test_half_precision_vectors_and_stacks_of_concepts(tmp_path: Path) -> None:
    stack = torch.randn(3, 32).bfloat16()
    torch.save(stack, tmp_path / "layer_1.pt")
    artifact = read_pt(tmp_path / "layer_1.pt", 1, concept_id=2)
    assert artifact.site.component == "residual"
    assert torch.equal(artifact.delta.tensors()["db"], stack[2].float())
    with pytest.raises(ArtifactError, match=r"concept_id 3 is not in .*layer_1\.pt, which holds 0, 1, 2"):
        read_pt(tmp_path / "layer_1.pt", 1, concept_id=3)


@pytest.mark.parametrize("form", FORMS)
def test_written_and_read_again(form: str, tmp_path: Path) -> None:
    artifact = change(form)
    artifact = SteeringArtifact(artifact.delta, artifact.site, model={"mlp_adds_to_stream": True})
    again = read_pt(write_pt(artifact, tmp_path), 2)
    for name, tensor in artifact.delta.tensors().items():
        assert torch.equal(tensor, again.delta.tensors()[name])


def test_concepts_in_memory() -> None:
    value = {3: {"weight": torch.zeros(48, 32), "bias": torch.ones(32)}, 5: change("lora")}
    assert from_state(value, 2, 3).form == "local_weight"
    assert from_state(value, 2, 5).form == "lora"
    with pytest.raises(ArtifactError, match="concept_id 0 is not in .* 3, 5"):
        from_state(value, 2, 0)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"weight": Trap()}, tmp_path / "layer_0.pt")
    with pytest.raises(ArtifactError, match="cannot be read as tensors"):
        read_pt(tmp_path / "layer_0.pt", 0)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_none_of_easyedits(tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        (torch.zeros(2, 3, 4), r"a tensor of shape \(2, 3, 4\)"),
        ({"x": 1}, "a dictionary of x"),
        (
            {"weight": torch.zeros(48, 32), "bias": torch.ones(32), "intervention_components": "block"},
            "changes no linear layer",
        ),
        ({"lora_A": torch.zeros(48, 3), "lora_B": torch.zeros(2, 32)}, "is broken"),
    ]
    for state, match in cases:
        torch.save(state, tmp_path / "layer_0.pt")
        with pytest.raises(ArtifactError, match=match):
            read_pt(tmp_path / "layer_0.pt", 0)
    (tmp_path / "layer_0.pt").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"layer_0\.pt cannot be read"):
        read_pt(tmp_path / "layer_0.pt", 0)


def test_no_file_of_easyedit_for_other_sites() -> None:
    behind_norm = SteeringArtifact(make_delta("vector", 48, 32), Site(1), model={"norm_after_mlp": True})
    with pytest.raises(ArtifactError, match="because a norm or a multiplier follows"):
        to_state(behind_norm)
    with pytest.raises(ArtifactError, match="only mlp.down_proj"):
        to_state(SteeringArtifact(make_delta("lora", 32, 32, 2), Site(1, "self_attn.o_proj")))


def test_weights_of_easyedit_behind_a_norm_come_with_a_warning(
    wrapper: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Gemma-2 EasyEdit's own training is not Eq. 4, so its result is another change there."""
    module = importlib.import_module("steer.models.model_wrapper")
    gemma = module.BaseModelWrapper(tiny_model("gemma2"), tiny_tokenizer())
    torch.save({"weight": torch.ones(48, 32), "bias": torch.ones(32)}, tmp_path / "layer_1.pt")
    with caplog.at_level(logging.WARNING):
        apply_vectors(shell("apply", layers=[1], multipliers=[1.0], steer_vector_load_dir=str(tmp_path)), gemma)
    assert "behind the norm" in caplog.text


# EasyEdit's data


def test_one_concept() -> None:
    concepts, several = concept_pairs([*ITEMS, {"matching": "a", "not_matching": "b"}], "mine")
    assert not several and len(concepts) == 1
    assert [p.question for p in concepts[0].pairs] == ["Is it?", "Is it not?", ""]


def test_several_concepts_keep_positive_rows_only() -> None:
    rows = [
        {**ITEMS[0], "category": "positive", "output_concept": "calm"},
        {**ITEMS[1], "category": "negative", "output_concept": "calm"},
    ]
    concepts, several = concept_pairs([("4", rows), (7, ITEMS)], max_concepts=2, max_examples=1)
    assert several and [c.concept_id for c in concepts] == [4, 7]
    assert [(p.concept, p.concept_id) for p in concepts[0].pairs] == [("calm", 4)]
    assert len(concepts[1].pairs) == 1


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([], "without items"),
        ("text", "without items"),
        ([(1, [])], "concept 1: there is no item"),
        ([(1, ITEMS), ITEMS[0]], "mixes items and concepts"),
        ([{"question": "q", "matching": "a"}], "item 0 has no 'not_matching'"),
        ([ITEMS[0], {"matching": "a", "not_matching": " a"}], "item 1: both answers are 'a'"),
        ([{"matching": float("nan"), "not_matching": "a"}], "item 0: matching is nan"),
    ],
)
def test_bad_data_names_the_item(data: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        concept_pairs(data, "mine")


def test_without_multipliers_the_change_s_own_strength_is_used(wrapper: Any, caplog: pytest.LogCaptureFixture) -> None:
    kept = Calibration(1.5, 1.5, 1.0, (-6.0, 6.0), True, "", "sum", "2026-01-02")
    artifact, model = dataclasses.replace(change("lora"), calibration=kept), tiny_model("qwen2")
    for vectors, m in (({"layer_2": artifact}, 1.5), ({"layer_2": change("lora")}, 1.0)):
        caplog.clear()
        apply_vectors(shell("apply", layers=[2]), wrapper, vectors)
        assert f"m = {m:g}" in caplog.text
        with artifact.attach(model, m):
            assert torch.allclose(logits(wrapper.model), logits(model), atol=1e-5)
    wrapper.reset("split")
    unsure = dataclasses.replace(artifact, calibration=dataclasses.replace(kept, reliable=False))
    with pytest.raises(ConfigError, match="not reliable"):
        apply_vectors(shell("apply", layers=[2]), wrapper, {"layer_2": unsure})
    lower = dataclasses.replace(artifact, site=Site(1))
    with pytest.raises(ConfigError, match="2 layers but 0 multipliers"):  # each was found for one change at a time
        apply_vectors(shell("apply", layers=[1, 2]), wrapper, {"layer_1": lower, "layer_2": artifact})
    with pytest.raises(ArtifactError, match="has 0 parts in layer 1"):
        apply_vectors(shell("apply", layers=[1]), wrapper, {"layer_1": artifact})


@pytest.mark.parametrize("form", FORMS)
def test_without_multipliers_a_change_of_several_layers_has_its_strength(
    wrapper: Any, form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, kept = tiny_model("qwen2"), Calibration(1.5, 1.5, 1.0, (-6.0, 6.0), True, "", "sum", "2026-01-02")
    bare = joint(model, form, (Site(1), Site(2)))
    whole = dataclasses.replace(bare, calibration=kept)
    folder = whole.save(tmp_path / "split").parent
    both = dict.fromkeys(("layer_1", "layer_2"), whole)
    for layers, given in (([1, 2], {"steer_vector_load_dir": str(folder)}), ([2, 1], {})):
        caplog.clear()
        apply_vectors(shell("apply", layers=layers, **given), wrapper, None if given else both)
        assert f"layers 1-2, mlp.down_proj: {kept}" in caplog.text
        with whole.attach(model, 1.5):
            expected = logits(model)
        assert torch.allclose(logits(wrapper.model), expected, atol=1e-5)
        wrapper.reset("split")
    with pytest.raises(ConfigError, match=r"keeps a strength for all of it, and layers is \[1\]; name them all"):
        apply_vectors(shell("apply", layers=[1], steer_vector_load_dir=str(folder)), wrapper)
    unsure = dataclasses.replace(whole, calibration=dataclasses.replace(kept, reliable=False))
    for one, message in ((unsure, "not reliable"), (bare, "2 layers but 0 multipliers")):
        with pytest.raises(ConfigError, match=message):
            apply_vectors(shell("apply", layers=[1, 2]), wrapper, dict.fromkeys(both, one))
    apply_vectors(shell("apply", layers=[1], multipliers=[1.5], steer_vector_load_dir=str(folder)), wrapper)
    with whole.attach(model, {1: 1.5, 2: 0.0}):
        assert torch.allclose(logits(wrapper.model), logits(model), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_files_for_easyedit_can_be_in_the_models_dtype(form: str, tmp_path: Path) -> None:
    """Its own appliers put the file's tensors beside the model's; ours read them as float32."""
    artifact = SteeringArtifact(change(form).delta, Site(2, "residual" if form == "vector" else "mlp.down_proj"))
    state = torch.load(write_pt(artifact, tmp_path, torch.bfloat16), weights_only=True)
    tensors = [state] if form == "vector" else [v for v in state.values() if isinstance(v, torch.Tensor)]
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    for name, tensor in read_pt(tmp_path / "layer_2.pt", 2).delta.tensors().items():
        assert torch.equal(tensor, artifact.delta.tensors()[name].bfloat16().float())
