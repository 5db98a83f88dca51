"""Defects of EasyEdit's own SPLIT (`spilt`), each shown on the real thing; docs/upstreaming.md reports them.

Run by test_host.py like checks.py. A test that fails says that the defect is gone: then drop it here and there.
Commits: the oldest is 133d030 (eager registry), then 553fd05, then 14cea82.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from host.inside import (
    CHECKOUT,
    LAYER,
    applied,
    for_upstream,
    general,
    generate,
    host_module,
    logged,
    loss_mode,
    spilt_shell,
    train,
    unsteered_losses,
    write_method,
)
from host.models import items
from omegaconf import OmegaConf

from easyedit_split.data.tokens import Encoder
from easyedit_split.easyedit import register
from easyedit_split.easyedit.host import wrapped_blocks

register()

REGISTRY_TEXT = (CHECKOUT / "steer" / "utils" / "alg_dict.py").read_text(encoding="utf-8")
OLDEST = not (CHECKOUT / "steer" / "benchmarks").is_dir()
NEWEST = "METHOD_FNS" not in REGISTRY_TEXT and not OLDEST
MIDDLE = not OLDEST and not NEWEST
EXPERIMENTS = CHECKOUT / "hparams" / "Steer" / "experiment_hparams" / "spilt_experiment"


@pytest.mark.skipif(not NEWEST, reason="the other commits import, given sae_lens")
def test_newest_commit_does_not_import() -> None:
    code = "import steer.utils.alg_dict"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert "cannot import name 'SaeFeatureHyperParams'" in done.stderr


@pytest.mark.skipif(not MIDDLE, reason="553fd05 only")
def test_registry_names_a_module_that_does_not_exist() -> None:
    with pytest.raises(ModuleNotFoundError, match="generate_merge_vector"):
        _ = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["merge_vector"]["train"]


def test_last_batch_that_is_not_full_crashes(wrapper: Any, tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, IndexError, KeyError)):
        train(wrapper, tmp_path, data=items(3), batch_size=2, preference_pairs=["orig_add", "orig_sub"])


def test_accumulation_beyond_the_loader_trains_with_learning_rate_zero(wrapper: Any, tmp_path: Path) -> None:
    trained = train(wrapper, tmp_path, batch_size=1, gradient_accumulation_steps=8)[f"layer_{LAYER}"]
    assert float(trained["weight"].abs().max()) == 0.0


def test_answers_of_a_pair_get_different_strengths(wrapper: Any, tmp_path: Path) -> None:
    train(wrapper, tmp_path, steering_factors=[float(i) for i in range(1, 50)], loss_output_dir=str(tmp_path))
    rows = logged(tmp_path)
    assert any(row["pos_steering_factors"] != row["neg_steering_factors"] for row in rows)


def test_hinge_is_taken_on_batch_means(wrapper: Any, tmp_path: Path) -> None:
    """One batch of all pairs, then a batch a pair, both with learning rate 0: the mean hinge is not the batch's."""
    penalty = {"margin_penalty_weight": 1.0, "margin_threshold": 0.05, "lr": 0.0}
    (tmp_path / "one").mkdir()
    (tmp_path / "each").mkdir()
    train(wrapper, tmp_path, batch_size=5, loss_output_dir=str(tmp_path / "one"), **penalty)
    train(wrapper, tmp_path, batch_size=1, loss_output_dir=str(tmp_path / "each"), **penalty)
    together = float(logged(tmp_path / "one")[0]["margin_loss"])
    each = [float(row["margin_loss"]) for row in logged(tmp_path / "each")]
    assert abs(together - sum(each) / len(each)) > 1e-3


def test_four_forwards_a_step_with_two_for_a_reference_of_weight_zero(wrapper: Any, tmp_path: Path) -> None:
    count = {"forwards": 0, "gates": 0}
    gate = wrapped_blocks(wrapper)[0].block.mlp.mlp.gate_proj
    hooks = [
        wrapper.model.register_forward_hook(lambda *_: count.update(forwards=count["forwards"] + 1)),
        gate.register_forward_hook(lambda *_: count.update(gates=count["gates"] + 1)),
    ]
    train(wrapper, tmp_path, data=items(1), ref_loss_weight=0.0)
    for hook in hooks:
        hook.remove()
    assert count == {"forwards": 4, "gates": 8}  # and the wrapper evaluates gate and up twice a forward


def test_lora_alpha_is_dropped(wrapper: Any, tmp_path: Path) -> None:
    fields = host_module("steer.utils.alg_dict").HYPERPARAMS_CLASS_DICT["spilt"]["train"].__dataclass_fields__
    assert "lora_alpha" not in fields
    assert train(wrapper, tmp_path, "lora")[f"layer_{LAYER}"]["alpha"] == 3  # the rank; the shell says 32


def test_trained_bias_is_not_saved(wrapper: Any, tmp_path: Path) -> None:
    trained = train(wrapper, tmp_path, "vector")[f"layer_{LAYER}"]
    assert float(wrapper.steer_vector.proj.bias.abs().max()) > 0
    assert trained.shape == (32,)


def test_model_is_left_changed(wrapper: Any, tmp_path: Path) -> None:
    tokenizer, before = wrapper.tokenizer, [p.requires_grad for p in wrapper.model.parameters()]
    for parameter in wrapper.model.parameters():
        parameter.requires_grad_(True)
    tokenizer.padding_side, longest = "left", tokenizer.model_max_length
    function = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["spilt"]["train"]
    with for_upstream(tokenizer):
        function(spilt_shell("lora", tmp_path, dropout=0.1, output_length=180), items(2), model=wrapper)
        assert tokenizer.padding_side == "right" and tokenizer.model_max_length == 180
    assert "spilt" in wrapped_blocks(wrapper)[LAYER].intervention_dict  # still steering, with dropout on
    assert wrapper.steer_vector.training
    assert not any(p.requires_grad for p in wrapper.model.parameters())
    tokenizer.model_max_length = longest
    for parameter, needed in zip(wrapper.model.parameters(), before, strict=True):
        parameter.requires_grad_(needed)


@pytest.mark.parametrize("form", ["lora", "local_weight"])
def test_several_concepts_cannot_be_saved_and_a_rerun_skips_them(wrapper: Any, form: str, tmp_path: Path) -> None:
    data = [(0, [{**item, "output_concept": "c", "category": "positive"} for item in items(2)])]
    with pytest.raises(TypeError, match="Tensor"):
        train(wrapper, tmp_path, form, data)
    folder = tmp_path / f"spilt_{form}"
    assert (folder / f"train_state_layer_{LAYER}.pkl").is_file() and not (folder / f"layer_{LAYER}.pt").exists()
    assert train(wrapper, tmp_path, form, data) == {f"layer_{LAYER}": {}}


class Trap:
    """Unpickling this creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_resume_file_runs_code(tmp_path: Path) -> None:
    (tmp_path / "state.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    host_module("steer.vector_generators.spilt.utils").load_state(str(tmp_path), "state.pkl")
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("form", ["lora", "local_weight"])
def test_weights_in_memory_cannot_be_applied(wrapper: Any, form: str, tmp_path: Path) -> None:
    vectors = train(wrapper, tmp_path, form)
    with pytest.raises(AttributeError, match="'dict' object has no attribute 'to'"):
        applied(wrapper, form, vectors, layers=[LAYER], multipliers=[1.0])


def test_float32_weights_fail_on_a_bfloat16_model(wrapper: Any, tmp_path: Path, folders: dict[str, Path]) -> None:
    train(wrapper, tmp_path, "lora")
    cfg = general(folders["tiny-qwen2"], dtype="bfloat16", torch_dtype="bfloat16")
    half = host_module("steer.models.get_model").get_model(cfg)[0]
    applied(half, "lora", layers=[LAYER], multipliers=[1.0], steer_vector_load_dir=str(tmp_path / "spilt_lora"))
    with pytest.raises(RuntimeError, match="dtype"):
        half.model(input_ids=torch.ones(1, 4, dtype=torch.long))


def test_several_layers_cannot_be_trained(wrapper: Any, tmp_path: Path) -> None:
    """The first layer's change stays attached while the second is trained."""
    with pytest.raises(KeyError):
        train(wrapper, tmp_path, layers=[1, 2])


def test_more_layers_than_multipliers_are_dropped_in_silence(wrapper: Any, tmp_path: Path) -> None:
    folder = tmp_path / "spilt_local_weight"
    train(wrapper, tmp_path)
    (folder / "layer_1.pt").write_bytes((folder / f"layer_{LAYER}.pt").read_bytes())
    wrapper.reset_all()
    applied(wrapper, "local_weight", layers=[1, LAYER], multipliers=[1.0], steer_vector_load_dir=str(folder))
    assert ["spilt" in block.intervention_dict for block in wrapped_blocks(wrapper)] == [False, True, False, False]


def test_end_tokens_are_masked_where_the_padding_token_is_one(wrapper: Any) -> None:
    tokenizer, data = wrapper.tokenizer, host_module("steer.trainer.utils.data_utils")
    padding = tokenizer.pad_token
    with for_upstream(tokenizer):
        tokenizer.pad_token = tokenizer.eos_token
        made = data.make_preference_data_module(
            tokenizer, [{"question": "q", "matching": "a<|im_end|>", "not_matching": "b"}], prefix_length=0
        )
        batch = made["data_collator"]([made["train_dataset"][0]])
        tokenizer.pad_token = padding
    ids, mask = batch["orig_add_winning_input_ids"][0], batch["orig_add_winning_attention_mask"][0]
    end = ids.tolist().index(tokenizer.eos_token_id)
    assert batch["orig_add_winning_labels"][0][end] == tokenizer.eos_token_id  # it is to be learnt
    assert mask[end] == 0


def test_prefix_length_is_found_as_zero_under_transformers_5(wrapper: Any) -> None:
    length = host_module("steer.vector_generators.spilt.utils").get_prefix_length(wrapper.tokenizer)
    assert length == 0
    assert Encoder(wrapper.tokenizer).prefix_length() > 0


@pytest.mark.skipif(not OLDEST, reason="later commits take the ids out of the BatchEncoding here")
def test_suffix_crashes_under_transformers_5(wrapper: Any) -> None:
    with pytest.raises(TypeError, match="not reversible"):
        host_module("steer.trainer.utils.data_utils").get_prompt_suffix_length(wrapper.tokenizer)


def test_factor_zero_ablates_the_projection() -> None:
    cls = host_module("steer.models.interventions").VectorIntervention
    intervention = cls(embed_dim=8, low_rank_dimension=1)
    intervention.subspaces = [{"steering_factor": torch.zeros(2)}]
    base = torch.randn(2, 3, 8)
    assert not torch.allclose(intervention.forward(base).output, base)


def test_training_skips_the_prefix_and_application_does_not(wrapper: Any, tmp_path: Path) -> None:
    train(wrapper, tmp_path, "vector", exclude_bos=True)
    assert wrapper.steer_vector.intervention_locations is not None
    folder = str(tmp_path / "spilt_vector")
    applied(wrapper, "vector", layers=[LAYER], multipliers=[1.0], steer_vector_load_dir=folder)
    assert wrapped_blocks(wrapper)[LAYER].intervention_dict["spilt"].intervention_locations is None


def test_loss_mode_measures_a_random_vector(wrapper: Any, tmp_path: Path) -> None:
    """The vector that is loaded is put aside, so one near zero gives other losses than no steering."""
    measured = loss_mode(wrapper, torch.full((32,), 1e-7), tmp_path)
    assert max(abs(a - b) for a, b in zip(measured, unsteered_losses(wrapper), strict=True)) > 1e-3


def test_yaml_slips() -> None:
    apply_files = sorted(EXPERIMENTS.rglob("apply_spilt.yaml"))
    assert apply_files
    assert all("concepts_id" in OmegaConf.load(path) for path in apply_files)
    weight = EXPERIMENTS / "powerseeking" / "gemma-2-9b-it" / "spilt" / "generate_spilt_local_weight.yaml"
    assert OmegaConf.load(weight).intervention_method == "weight"
    twice = EXPERIMENTS / "axbench" / "gemma-2-9b-it" / "spilt" / "generate_spilt_lora.yaml"
    with pytest.raises(Exception, match="duplicate key lora_alpha"):
        OmegaConf.load(twice)


def test_some_files_are_never_found() -> None:
    """The runner looks for generate_<method>_<form>.yaml; the script calls a runner of another name."""
    stray = sorted(path.name for path in EXPERIMENTS.rglob("generate_spilt_*_XXXXX.yaml"))
    assert stray == ["generate_spilt_local_weight_XXXXX.yaml", "generate_spilt_lora_XXXXX.yaml"]
    script = (CHECKOUT / "examples" / "run_SPILT.sh").read_text(encoding="utf-8")
    assert "./examples/run_SPLIT.py" in script and not (CHECKOUT / "examples" / "run_SPLIT.py").exists()
    listed = OmegaConf.load(CHECKOUT / "hparams" / "Steer" / "dataset_format.yaml")
    assert "powerseeking" in listed.train and "powerseeking" not in listed.generation


def test_another_folder_is_printed_than_is_written(
    wrapper: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the form, '<method>_vector' is printed."""
    generate(tmp_path, Path(wrapper.model_name_or_path), [write_method(tmp_path / "m.yaml", "lora")], items(2))
    assert f"Saving vectors to {tmp_path / 'vectors' / 'mine' / 'split_vector'} ..." in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "vectors" / "mine").iterdir()] == ["split_lora"]


def test_vector_of_zeros_gives_no_number() -> None:
    """The projection on it is divided by its norm, though a factor of 1 asks for no projection."""
    intervention = host_module("steer.models.interventions").VectorIntervention(embed_dim=8, low_rank_dimension=1)
    with torch.no_grad():
        intervention.proj.weight.zero_()
    intervention.subspaces = [{"steering_factor": torch.ones(2)}]
    assert bool(intervention.forward(torch.randn(2, 3, 8)).output.isnan().all())


def test_split_is_no_method_of_plain_easyedit() -> None:
    code = "import steer.utils.alg_dict as registry\nprint('split' in registry.METHODS_CLASS_DICT)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert "True" not in done.stdout


@pytest.mark.skipif(NEWEST, reason="mended in 14cea82")
def test_original_output_is_steered(wrapper: Any, tmp_path: Path) -> None:
    train(wrapper, tmp_path, lr=0.5)
    ids, options = torch.arange(40, 50)[None], {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    wrapper.reset_all()
    plain = wrapper.model.generate(input_ids=ids, **options)
    folder = str(tmp_path / "spilt_local_weight")
    applied(wrapper, "local_weight", layers=[LAYER], multipliers=[20.0], steer_vector_load_dir=folder)
    assert not torch.equal(wrapper.ori_generate(ids, **options), plain)


@pytest.mark.skipif(not OLDEST, reason="mended later")
def test_vector_applier_takes_one_element_and_no_multiplier(wrapper: Any, tmp_path: Path) -> None:
    torch.save(torch.arange(1.0, 33.0), tmp_path / f"layer_{LAYER}.pt")
    applied(wrapper, "vector", layers=[LAYER], multipliers=[7.0], steer_vector_load_dir=str(tmp_path))
    weight = wrapped_blocks(wrapper)[LAYER].intervention_dict["spilt"].proj.weight
    assert torch.equal(weight, torch.ones(1, 32))


def test_unknown_names_cannot_be_reset(wrapper: Any) -> None:
    """The names are written into the wrapper, so that a new method is left attached; ours is asked first."""
    reset = host_module("steer.models.model_wrapper").BaseModelWrapper.reset.__wrapped__
    with pytest.raises(ValueError, match="not supported to reset"):
        reset(wrapper, "split")


def test_unknown_keys_vanish(wrapper: Any, tmp_path: Path) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text("alg_name: spilt\nbatchsize: 64\n", encoding="utf-8")
    cfg = general(tmp_path, steer_train_hparam_paths=[str(file)], steer_train_dataset=["d"])
    cfg.steer_vector_output_dirs = ["out"]
    loaded = host_module("steer.utils.load_hparams").load_generate_vector_hparams(cfg)["spilt"]
    assert loaded.batch_size == 2  # the default
