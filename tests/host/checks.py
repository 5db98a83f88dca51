"""What must hold inside a real EasyEdit; run by test_host.py in a process of its own for each checkout.

The process imports `steer` once (8 to 13 s). The folder to work in and the checkout come from the environment.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from host.inside import (
    CHECKOUT,
    FACTOR,
    FORMS,
    LAYER,
    SHAPE_NAMES,
    applier,
    apply_shell,
    artifact,
    close,
    for_upstream,
    fresh,
    general,
    generate,
    hook_count,
    host_module,
    logged,
    logits,
    shell,
    spilt_shell,
    upstream_texts,
    upstream_training,
    write_method,
)
from host.models import items
from tiny import random_delta, tiny_model, tiny_tokenizer

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.attach import attach
from easyedit_split.changes.calibration import Calibration
from easyedit_split.changes.forms import LinearDelta, make_delta
from easyedit_split.data.tokens import Encoder
from easyedit_split.easyedit import METHODS, register
from easyedit_split.easyedit.apply import apply_vectors
from easyedit_split.easyedit.artifacts import from_state, read_folder, to_state, write_pt
from easyedit_split.easyedit.host import plain_model, wrapped_blocks
from easyedit_split.errors import ArtifactError, ConfigError, DataError, HostError, SiteError
from easyedit_split.models.sites import Site
from easyedit_split.scoring.scorer import PairScorer

register()


def test_methods_are_in_every_registry() -> None:
    registry = host_module("steer.utils.alg_dict")
    required = host_module("steer.vector_generators.vector_generators").REQUIRED_DATASET_METHODS
    for name in METHODS:
        assert name in registry.METHODS_CLASS_DICT
        assert set(registry.HYPERPARAMS_CLASS_DICT[name]) == {"train", "apply"}
        assert required.count(name) == 1
        assert callable(registry.METHODS_CLASS_DICT[name]["train"])
        assert callable(registry.METHODS_CLASS_DICT[name]["apply"])


def test_registering_again_changes_nothing() -> None:
    module = host_module("steer.models.model_wrapper")
    reset, required = (
        module.BlockOutputWrapper.reset,
        list(host_module("steer.vector_generators.vector_generators").REQUIRED_DATASET_METHODS),
    )
    register()
    assert module.BlockOutputWrapper.reset is reset
    assert required == host_module("steer.vector_generators.vector_generators").REQUIRED_DATASET_METHODS
    assert sum(type(finder).__name__ == "ImportHook" for finder in sys.meta_path) == 1


def test_methods_of_easyedit_stay_callable() -> None:
    registry = host_module("steer.utils.alg_dict")
    for name in ("caa", "spilt", "sft", "reps"):
        assert callable(registry.METHODS_CLASS_DICT[name]["apply"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrapper", SHAPE_NAMES, indirect=True)
def test_train_then_apply_from_disk_and_from_memory(
    wrapper: Any, form: str, tmp_path: Path, folders: dict[str, Path]
) -> None:
    folder = Path(wrapper.model_name_or_path)
    file = write_method(tmp_path / "m.yaml", form)
    plain = logits(wrapper)
    vectors = generate(tmp_path, folder, [file], items())
    trained = vectors["split"][f"layer_{LAYER}"]
    assert float(trained.delta.tensors()[{"vector": "db", "lora": "B", "local_weight": "dW"}[form]].abs().max()) > 0
    saved = tmp_path / "vectors" / "mine" / f"split_{form}"

    applier(folder, [file], [str(saved)], wrapper)
    from_disk = logits(wrapper)
    applier(folder, [file], [str(saved)], wrapper, vectors)
    assert torch.equal(logits(wrapper), from_disk)

    model = fresh(folder)
    with trained.attach(model, 1.5):
        assert close(from_disk, logits(model))
    trained.merge(model, 1.5)
    assert close(from_disk, logits(model))
    assert not close(from_disk, plain)
    wrapper.reset("split")
    assert torch.equal(logits(wrapper), plain)


@pytest.mark.parametrize("wrapper", SHAPE_NAMES, indirect=True)
def test_original_output_is_the_plain_model_and_steering_resumes(wrapper: Any) -> None:
    ids = torch.arange(40, 50).view(1, 10)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    before = wrapper.model.generate(input_ids=ids, **options)
    plain = logits(wrapper)
    change = artifact(wrapper.model, "local_weight")
    apply_vectors(apply_shell(multipliers=[6.0]), wrapper, {f"layer_{LAYER}": change})
    steered = wrapper.model.generate(input_ids=ids, **options)
    steered_logits = logits(wrapper)
    assert not torch.equal(steered, before)
    assert torch.equal(wrapper.ori_generate(ids, **options), before)
    assert torch.equal(wrapper.model.generate(input_ids=ids, **options), steered)
    assert torch.equal(logits(wrapper), steered_logits)
    wrapper.reset_all()
    assert torch.equal(logits(wrapper), plain)


@pytest.mark.parametrize("clear", ["reset", "reset_all", "layer"])
def test_everything_is_gone_after_a_reset(wrapper: Any, clear: str) -> None:
    plain, hooks = logits(wrapper), hook_count(wrapper)
    for _ in range(2):
        apply_vectors(apply_shell(), wrapper, {f"layer_{LAYER}": artifact(wrapper.model, "lora")})
    assert not torch.equal(logits(wrapper), plain)
    if clear == "reset":
        wrapper.reset("split")
    elif clear == "reset_all":
        wrapper.reset_all()
    else:
        wrapped_blocks(wrapper)[LAYER].reset("split")
    assert torch.equal(logits(wrapper), plain)
    assert hook_count(wrapper) == hooks
    assert "split" not in wrapped_blocks(wrapper)[LAYER].intervention_dict


def test_applying_twice_is_applying_once(wrapper: Any) -> None:
    vectors = {f"layer_{LAYER}": artifact(wrapper.model, "local_weight")}
    apply_vectors(apply_shell(), wrapper, vectors)
    once, hooks = logits(wrapper), hook_count(wrapper)
    apply_vectors(apply_shell(), wrapper, vectors)
    assert torch.equal(logits(wrapper), once)
    assert hook_count(wrapper) == hooks


@pytest.mark.parametrize("name", ["pipline", "pipeline"])
def test_callers_name_the_wrapper_in_two_ways(wrapper: Any, name: str) -> None:
    apply = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["split"]["apply"]
    vectors = {f"layer_{LAYER}": artifact(wrapper.model, "vector")}
    assert apply(apply_shell(), vector=vectors, **{name: wrapper}) is wrapper
    assert "split" in wrapped_blocks(wrapper)[LAYER].intervention_dict


def test_several_layers_with_a_multiplier_each(wrapper: Any) -> None:
    changes = {layer: artifact(wrapper.model, "lora", layer, seed=layer) for layer in (0, 3)}
    apply_vectors(
        apply_shell(layers=[0, 3], multipliers=[0.5, -1.0]), wrapper, {f"layer_{k}": v for k, v in changes.items()}
    )
    model = fresh(Path(wrapper.model_name_or_path))
    with changes[0].attach(model, 0.5), changes[3].attach(model, -1.0):
        assert close(logits(wrapper), logits(model))


def test_layers_together_at_the_strength_that_they_keep(wrapper: Any, tmp_path: Path) -> None:
    """A change of several layers and a file without multipliers."""
    kept = Calibration(1.5, 1.5, 1.0, (-6.0, 6.0), True, "", "sum", "2026-01-02")
    parts = [artifact(wrapper.model, "local_weight", layer, seed=layer) for layer in (0, 3)]
    whole = dataclasses.replace(SteeringArtifact.joined(parts), calibration=kept)
    whole.save(tmp_path)
    apply_vectors(apply_shell(layers=[0, 3], multipliers=[], steer_vector_load_dir=str(tmp_path)), wrapper)
    model = fresh(Path(wrapper.model_name_or_path))
    with whole.attach(model, 1.5):
        assert close(logits(wrapper), logits(model))


def test_two_of_our_methods_stack(wrapper: Any) -> None:
    first, second = artifact(wrapper.model, "lora", seed=3), artifact(wrapper.model, "vector", seed=4)
    apply_vectors(apply_shell(), wrapper, {f"layer_{LAYER}": first})
    other = shell("apply", "unified_sft", layers=[LAYER], multipliers=[2.0], alg_name="unified_sft")
    apply_vectors(other, wrapper, {f"layer_{LAYER}": second})
    model = fresh(Path(wrapper.model_name_or_path))
    with first.attach(model, 1.5), second.attach(model, 2.0):
        assert close(logits(wrapper), logits(model))
    wrapper.reset("unified_sft")
    with first.attach(model, 1.5):
        assert close(logits(wrapper), logits(model))


@pytest.mark.parametrize("wrapper", SHAPE_NAMES, indirect=True)
def test_stacks_with_caa_and_prompt(wrapper: Any, tmp_path: Path) -> None:
    folder = Path(wrapper.model_name_or_path)
    vector = torch.randn(wrapper.model.config.hidden_size, generator=torch.Generator().manual_seed(5))
    (tmp_path / "caa").mkdir()
    torch.save(vector, tmp_path / "caa" / f"layer_{LAYER}.pt")
    change = artifact(wrapper.model, "local_weight")
    change.save(tmp_path / "split")
    caa, prompt = tmp_path / "caa.yaml", tmp_path / "prompt.yaml"
    caa.write_text(f"alg_name: caa\nlayers: [{LAYER}]\nmultipliers: [0.5]\n", encoding="utf-8")
    prompt.write_text("alg_name: prompt\nprompt: Be kind.\ngenerate_prompt_params: {}\n", encoding="utf-8")
    split = write_method(tmp_path / "split.yaml", "local_weight")
    load = [str(tmp_path / "caa"), str(tmp_path / "split"), str(tmp_path)]
    made = applier(
        folder, [caa, split, prompt], load, wrapper, generate_orig_output=True, generation_output_dir=str(tmp_path)
    )
    model = fresh(folder)
    model.model.layers[LAYER].register_forward_hook(
        lambda m, a, out: (out[0] + 0.5 * vector, *out[1:]) if isinstance(out, tuple) else out + 0.5 * vector
    )
    with change.attach(model, 1.5):
        assert close(logits(wrapper), logits(model))
    assert wrapper.prompt == "Be kind."
    results = made.generate({"mine": [{"input": "hello"}]})
    assert len(results) == 1 and results[0]["pred"] and results[0]["orig_pred"]


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_several_concepts(wrapper: Any, form: str, chat: bool, tmp_path: Path) -> None:
    folder = Path(wrapper.model_name_or_path)
    file = write_method(tmp_path / "m.yaml", form, n_epochs=1)
    data = [
        (3, [{**item, "output_concept": "three", "category": "positive"} for item in items(3)]),
        (5, [{**item, "output_concept": "five", "category": "positive"} for item in items(2)]),
    ]
    vectors = generate(tmp_path, folder, [file], data, use_chat_template=chat)["split"]
    trained = vectors[f"layer_{LAYER}"]
    assert sorted(trained) == [3, 5]
    assert trained[5].origin["concept"] == "five" and trained[5].origin["chat"] is chat
    saved = tmp_path / "vectors" / "mine" / f"split_{form}"
    apply_vectors(apply_shell(concept_id=5, steer_vector_load_dir=str(saved)), wrapper)
    from_disk = logits(wrapper)
    apply_vectors(apply_shell(concept_id=5), wrapper, vectors)
    assert torch.equal(logits(wrapper), from_disk)
    apply_vectors(apply_shell(concept_id=3), wrapper, vectors)
    assert not torch.equal(logits(wrapper), from_disk)
    with pytest.raises(ArtifactError, match="concept_id 4 .* holds 3, 5"):
        apply_vectors(apply_shell(concept_id=4, steer_vector_load_dir=str(saved)), wrapper)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrapper", SHAPE_NAMES, indirect=True)
def test_model_is_left_as_it_was_found(wrapper: Any, form: str, tmp_path: Path) -> None:
    model, tokenizer = wrapper.model, wrapper.tokenizer
    model.train()
    model.model.norm.weight.requires_grad_(False)

    def state() -> Any:
        return (
            [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [type(m).__name__ for m in model.modules()],
            hook_count(wrapper),
            (tokenizer.padding_side, tokenizer.model_max_length, tokenizer.pad_token_id),
            [dict(b.intervention_dict) for b in wrapped_blocks(wrapper)],
        )

    before, weights = state(), [p.clone() for p in model.parameters()]
    train = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["split"]["train"]
    train(
        shell("train", layers=[LAYER], intervention_method=form, intervention_components="mlp_mid", n_epochs=1,
              output_length=64, steer_vector_output_dir=str(tmp_path), use_chat_template=True),
        items(3), dataset_name="mine", model=wrapper,
    )  # fmt: skip
    assert state() == before
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    model.eval()


def test_training_does_not_see_what_is_attached(wrapper: Any, tmp_path: Path) -> None:
    """The change is trained on the model itself, and what was attached acts again afterwards."""
    train = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["split"]["train"]
    settings = {
        "layers": [LAYER], "intervention_method": "vector", "n_epochs": 1, "save_vectors": False,
        "steer_vector_output_dir": str(tmp_path), "use_chat_template": True,
    }  # fmt: skip
    alone = train(shell("train", **settings), items(3), model=wrapper)[f"layer_{LAYER}"]
    apply_vectors(apply_shell(layers=[1]), wrapper, {"layer_1": artifact(wrapper.model, "lora", 1)})
    steered = logits(wrapper)
    beside = train(shell("train", **settings), items(3), model=wrapper)[f"layer_{LAYER}"]
    assert torch.equal(alone.delta.tensors()["db"], beside.delta.tensors()["db"])
    assert torch.equal(logits(wrapper), steered)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("wrapper", SHAPE_NAMES, indirect=True)
def test_plain_vector_is_read_by_caa_and_merge_vector(wrapper: Any, tmp_path: Path) -> None:
    folder = Path(wrapper.model_name_or_path)
    registry = host_module("steer.utils.alg_dict")
    train = registry.METHODS_CLASS_DICT["split"]["train"]
    settings = {
        "layers": [LAYER],
        "intervention_method": "vector",
        "n_epochs": 1,
        "steer_vector_output_dir": str(tmp_path),
    }
    trained = train(shell("train", use_chat_template=True, exclude_bos=False, **settings), items(3), model=wrapper)
    saved = tmp_path / "split_vector"
    caa = registry.HYPERPARAMS_CLASS_DICT["caa"]["apply"](
        layers=[LAYER], multipliers=[1.5], steer_vector_load_dir=str(saved), device="cpu"
    )
    registry.METHODS_CLASS_DICT["caa"]["apply"](caa, wrapper)
    by_caa = logits(wrapper)
    wrapper.reset_all()
    apply_vectors(apply_shell(), wrapper, trained)
    assert close(by_caa, logits(wrapper))
    merge = registry.HYPERPARAMS_CLASS_DICT["merge_vector"]["train"](
        vector_paths=[str(saved / f"layer_{LAYER}.pt")] * 2, weights=[0.5, 0.5], method="linear",
        steer_vector_output_dir=str(tmp_path), device="cpu",
    )  # fmt: skip
    # the registry of 553fd05 names a module that does not exist, so the function is taken from its own
    merged = host_module("steer.vector_generators.merge.generate_merge_vectors").generate_merge_vector(merge)
    # its 'linear' normalises by the sum of the weights, which is 1 here
    assert torch.allclose(next(iter(merged.values())), trained[f"layer_{LAYER}"].delta.tensors()["db"], atol=1e-6)
    assert folder.is_dir()


@pytest.mark.parametrize("wrapper", ["tiny-qwen2", "tiny-gemma2"], indirect=True)
def test_no_plain_vector_where_it_would_be_another_change(
    wrapper: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At the linear layer of Gemma-2 a norm follows, so a vector at the block's output is not this change."""
    train = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["split"]["train"]
    train(
        shell("train", layers=[LAYER], intervention_method="vector", intervention_components="mlp_mid", n_epochs=1,
              steer_vector_output_dir=str(tmp_path), use_chat_template=True),
        items(2), model=wrapper,
    )  # fmt: skip
    written = (tmp_path / "split_vector" / f"layer_{LAYER}.pt").is_file()
    gemma = "gemma" in str(wrapper.model_name_or_path)
    assert written is not gemma
    assert ("is not written" in caplog.text) is gemma


@pytest.mark.parametrize("form", FORMS)
def test_results_of_easyedit_are_applied_as_it_applies_them(wrapper: Any, form: str, tmp_path: Path) -> None:
    """On Qwen2's shape the block's output and the linear layer agree, so both appliers give the same model."""
    registry = host_module("steer.utils.alg_dict")
    with for_upstream(wrapper.tokenizer):
        registry.METHODS_CLASS_DICT["spilt"]["train"](spilt_shell(form, tmp_path), items(4), model=wrapper)
    wrapper.reset_all()
    saved = tmp_path / f"spilt_{form}"
    plain, read = logits(wrapper), read_folder(saved, LAYER)
    if form != "vector" or vectors_are_scaled():
        theirs = registry.HYPERPARAMS_CLASS_DICT["spilt"]["apply"](
            layers=[LAYER], multipliers=[1.5], intervention_method=form, steer_vector_load_dir=str(saved), device="cpu"
        )
        registry.METHODS_CLASS_DICT["spilt"]["apply"](theirs, wrapper)
        expected = logits(wrapper)
        wrapper.reset_all()
    else:
        model = fresh(Path(wrapper.model_name_or_path))
        vector = torch.load(saved / f"layer_{LAYER}.pt", weights_only=True)
        model.model.layers[LAYER].register_forward_hook(lambda module, args, out: out + 1.5 * vector)
        expected = logits(model)
    apply_vectors(apply_shell(steer_vector_load_dir=str(saved)), wrapper)
    assert close(logits(wrapper), expected)
    assert not close(expected, plain)

    state, again = torch.load(saved / f"layer_{LAYER}.pt", weights_only=True), to_state(read)
    pairs = [(state, again)] if form == "vector" else [(state[key], again[key]) for key in again if key != "concept_id"]
    for a, b in pairs:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    written = write_pt(read, tmp_path / "back")
    assert from_state(torch.load(written, weights_only=True), LAYER).form == form


def vectors_are_scaled() -> bool:
    """False on 133d030, whose vector applier takes the vector's first element and ignores the multiplier."""
    return "multiplier" in inspect.getsource(host_module("steer.models.interventions").VectorIntervention)


def upstream_losses(wrapper: Any, delta: LinearDelta, texts: list[dict[str, str]], tmp_path: Path) -> list[Any]:
    """(L_p, L_n) of each pair as EasyEdit's own `spilt` trainer logs them, with our weights and learning rate 0."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    upstream_training(wrapper, delta, spilt_shell(delta.form, tmp_path, lr=0.0, loss_output_dir=str(tmp_path)), texts)
    return sorted((float(row["pos_steer_loss"]), float(row["neg_steer_loss"])) for row in logged(tmp_path))


def our_losses(model: Any, encoder: Encoder, site: Site | None, delta: LinearDelta | None) -> list[Any]:
    from easyedit_split.data.pairs import PreferencePair

    pairs = [PreferencePair(**item) for item in items()]
    attached = nullcontext() if site is None or delta is None else attach(model, delta, site, FACTOR)
    with torch.no_grad(), attached as handle:
        scores = PairScorer(model, encoder.pairs(pairs), handle).losses(torch.arange(len(pairs)))
    p, n = scores.matching / scores.matching_tokens, scores.not_matching / scores.not_matching_tokens
    return sorted(zip(p.tolist(), n.tolist(), strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrapper", ["tiny-qwen2", "tiny-gemma2"], indirect=True)
def test_losses_against_the_trainer_of_easyedit(wrapper: Any, form: str, tmp_path: Path) -> None:
    """Same weights, factor and data. Qwen2: equal. Gemma-2: ours is the merged weights (Eq. 4), theirs is not."""
    encoder = Encoder(wrapper.tokenizer)
    change = artifact(wrapper.model, form)
    with plain_model(wrapper) as model:
        ours = our_losses(model, encoder, change.site, change.delta)
    theirs = upstream_losses(wrapper, change.delta, upstream_texts(encoder), tmp_path / "log")
    merged_model = fresh(Path(wrapper.model_name_or_path))
    change.merge(merged_model, FACTOR)
    merged = our_losses(merged_model, encoder, None, None)
    assert torch.allclose(torch.tensor(ours), torch.tensor(merged), rtol=0, atol=1e-5)
    difference = float((torch.tensor(ours) - torch.tensor(theirs)).abs().max())
    if "gemma" in str(wrapper.model_name_or_path):
        assert difference > 1e-2
    else:
        assert difference < 1e-5


def own_files(kind: str) -> list[Path]:
    root = CHECKOUT / "hparams" / "Steer" / "experiment_hparams" / "spilt_experiment"
    return sorted(path for path in root.rglob(f"{kind}_spilt*.yaml"))


@pytest.mark.parametrize("path", own_files("generate"), ids=lambda p: "/".join(p.parts[-4:]))
def test_a_spilt_file_trains_with_one_word_changed(path: Path, wrapper: Any, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("alg_name: spilt", "alg_name: split")
    file = tmp_path / path.name
    file.write_text(text, encoding="utf-8")
    extra = {"layers": [LAYER], "n_epochs": 1}  # EasyEdit's own config wins over the file, as with any method
    try:
        vectors = generate(tmp_path, Path(wrapper.model_name_or_path), [file], items(2), **extra)
    except ConfigError as error:
        assert "given twice" in str(error)  # a doubled key, which EasyEdit cannot read either
        return
    assert set(vectors["split"]) == {f"layer_{LAYER}"}


@pytest.mark.parametrize("path", own_files("apply"), ids=lambda p: "/".join(p.parts[-4:]))
@pytest.mark.parametrize("form", FORMS)
def test_a_spilt_apply_file_applies_every_form(path: Path, form: str, wrapper: Any, tmp_path: Path) -> None:
    file = tmp_path / path.name
    file.write_text(path.read_text(encoding="utf-8").replace("alg_name: spilt", "alg_name: split"), encoding="utf-8")
    change = artifact(wrapper.model, form)
    change.save(tmp_path / "vectors")
    with pytest.warns(UserWarning, match="concepts_id is read as concept_id"):
        applier(Path(wrapper.model_name_or_path), [file], [str(tmp_path / "vectors")], wrapper, layers=[LAYER])
    model = fresh(Path(wrapper.model_name_or_path))
    with change.attach(model, 1.0):
        assert close(logits(wrapper), logits(model))


def test_bad_method_files(wrapper: Any, tmp_path: Path) -> None:
    folder = Path(wrapper.model_name_or_path)
    file = write_method(tmp_path / "m.yaml", "lora")
    twin = write_method(tmp_path / "twin.yaml", "vector")
    with pytest.raises(ConfigError, match=r"two files of the method 'split'.*m\.yaml.*twin\.yaml"):
        generate(tmp_path, folder, [file, twin], items())
    typo = tmp_path / "typo.yaml"
    typo.write_text(file.read_text(encoding="utf-8").replace("batch_size", "batchsize"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"typo\.yaml.*'batchsize'.*'batch_size'"):
        generate(tmp_path, folder, [typo], items())
    with pytest.raises(DataError, match="item 1.* the matching answer is empty"):
        generate(tmp_path, folder, [file], [*items(1), {"question": "q", "matching": "", "not_matching": "x"}])
    far = write_method(tmp_path / "far.yaml", "lora", layers="[9]")
    with pytest.raises(SiteError, match="layer 9 is out of range"):
        generate(tmp_path, folder, [far], items())


def test_bad_applications_leave_the_wrapper_alone(wrapper: Any, tmp_path: Path) -> None:
    plain, hooks = logits(wrapper), hook_count(wrapper)
    change = artifact(wrapper.model, "lora")
    vectors = {f"layer_{LAYER}": change, "layer_3": artifact(wrapper.model, "lora", 3)}
    narrow = SteeringArtifact(make_delta("vector", 48, 16), Site(3))
    other = SteeringArtifact(
        change.delta, change.site, model={"name": "x", "architecture": "gemma2", "layers": 4, "width": 32}
    )
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        (apply_shell(layers=[LAYER, 3]), vectors, ConfigError, "2 layers but 1 multipliers"),
        (apply_shell(steer_vector_load_dir=str(tmp_path / "no")), None, ArtifactError, "/no does not exist"),
        (apply_shell(steer_vector_load_dir=str(tmp_path)), None, ArtifactError, "nothing for layer 2"),
        (apply_shell(), None, ConfigError, "set steer_vector_load_dir"),
        (apply_shell(concept_id=2), vectors, ArtifactError, "concept_id 2 .* holds one concept"),
        (apply_shell(layers=[1]), vectors, ConfigError, "no 'layer_1'"),
        (apply_shell(intervention_method="vector"), vectors, ConfigError, "trained as 'lora'"),
        (apply_shell(multipliers=[float("nan")]), vectors, ConfigError, "finite"),
        (apply_shell(layers=[LAYER, 3], multipliers=[1.0, 1.0]), {**vectors, "layer_3": narrow}, SiteError, "16"),
        (apply_shell(), {f"layer_{LAYER}": other}, ArtifactError, "gemma2.*qwen2"),
    ]
    for hparams, given, error, match in cases:
        with pytest.raises(error, match=match):
            apply_vectors(hparams, wrapper, given)
        assert torch.equal(logits(wrapper), plain) and hook_count(wrapper) == hooks
    with pytest.raises(HostError, match="get_model"):
        apply_vectors(apply_shell(), object(), vectors)


def test_gpt2_has_its_own_wrapper_and_reset(tmp_path: Path) -> None:
    """GPTWrapper overrides reset and ori_generate, and its blocks lie elsewhere."""
    if "c_fc" not in inspect.getsource(host_module("steer.models.model_wrapper").MLPWrapper):
        pytest.skip("the wrapper of this commit runs no GPT-2 at all: it asks its feed-forward for act_fn")
    tiny_model("gpt2").save_pretrained(tmp_path / "tiny-gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny-gpt2")
    wrapper = host_module("steer.models.get_model").get_model(general(tmp_path / "tiny-gpt2"))[0]
    plain, hooks = logits(wrapper), hook_count(wrapper)
    change = SteeringArtifact(random_delta(make_delta("local_weight", 48, 32), 0.3), Site(LAYER))
    apply_vectors(apply_shell(), wrapper, {f"layer_{LAYER}": change})
    model = fresh(tmp_path / "tiny-gpt2")
    with change.attach(model, 1.5):
        assert close(logits(wrapper), logits(model))
    ids, options = torch.arange(40, 50)[None], {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(wrapper.ori_generate(ids, **options), fresh(tmp_path / "tiny-gpt2").generate(ids, **options))
    wrapper.reset("split")
    assert torch.equal(logits(wrapper), plain) and hook_count(wrapper) == hooks
