"""What holds in EasyEdit once a change of `easyedit_split/easyedit/upstream` is made, and does not hold before.

Run by `python -m easyedit_split.easyedit.upstream CHECKOUT`, on a branch for each change. Counterpart of defects.py.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from host.checks_objectives import Watched, ablate_everywhere, change_of, our_step, upstream_reps
from host.inside import (
    CHECKOUT,
    FACTOR,
    FORMS,
    LAYER,
    RANK,
    applied,
    for_upstream,
    generate,
    host_module,
    logged,
    logits,
    loss_mode,
    measured,
    train,
    unsteered_losses,
    upstream_shell,
    write_method,
)
from host.models import items
from omegaconf import OmegaConf

from easyedit_split.data.tokens import Encoder
from easyedit_split.easyedit import register
from easyedit_split.easyedit.host import wrapped_blocks
from easyedit_split.training.objectives import RepsObjective

register()
EXPERIMENTS = CHECKOUT / "hparams" / "Steer" / "experiment_hparams" / "spilt_experiment"


def plain_python(code: str) -> subprocess.CompletedProcess[str]:
    """In the checkout, without this package's repair."""
    return subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=600)


# --- 01 -------------------------------------------------------------------------------------------------------------

IMPORTS = """
import steer.utils.alg_dict as registry
from steer.vector_generators.vector_generators import BaseVectorGenerator
from steer.vector_appliers.vector_applier import BaseVectorApplier
own = "caa lm_steer merge_vector prompt reps sae_feature sft spilt sta vector_prompt".split()
print(sum(name in registry.METHODS_CLASS_DICT for name in own), "methods")
"""

CALLS = """
import steer.utils.alg_dict as registry
for phases in registry.METHODS_CLASS_DICT.values():
    for function in phases.values():
        try:
            function()
        except TypeError as error:
            assert "missing" in str(error), error
        except ModuleNotFoundError as error:
            assert error.name.startswith("sae_lens"), error
"""


def test_registry_imports() -> None:
    done = plain_python(IMPORTS)
    measured("import of the registry", (done.stdout + done.stderr).strip().split("\n")[-1].split(" (")[0])
    assert done.returncode == 0 and "10 methods" in done.stdout, done.stderr


def test_every_method_is_found() -> None:
    """Called without arguments, each one is reached (or lacks sae_lens, where that is not installed)."""
    done = plain_python(CALLS)
    assert done.returncode == 0, done.stderr


# --- 02 -------------------------------------------------------------------------------------------------------------


def test_loss_mode_measures_the_trained_vector(wrapper: Any, tmp_path: Path) -> None:
    """A vector near zero is no steering; another vector, added by a hook at the block's output, is what is measured."""
    (tmp_path / "none").mkdir()
    (tmp_path / "other").mkdir()
    none = loss_mode(wrapper, torch.full((32,), 1e-7), tmp_path / "none")
    off = max(abs(a - b) for a, b in zip(none, unsteered_losses(wrapper), strict=True))
    measured("loss mode, a vector of 1e-7: largest distance from unsteered losses, nats a token", off)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(8))
    steered = loss_mode(wrapper, vector, tmp_path / "other")
    hook = wrapped_blocks(wrapper)[LAYER].register_forward_hook(lambda m, a, out: out + FACTOR * vector)
    expected = unsteered_losses(wrapper)
    hook.remove()
    apart = max(abs(a - b) for a, b in zip(steered, expected, strict=True))
    measured("loss mode, a random vector: largest distance from the model steered with it, nats a token", apart)
    assert off < 1e-5 and apart < 1e-5


# --- 03, 04 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [["orig_add"], ["orig_add", "orig_sub"]], ids=["add", "both"])
def test_answers_of_a_pair_share_their_strength(wrapper: Any, tmp_path: Path, pairs: list[str]) -> None:
    factors = [float(i) for i in range(1, 50)]
    train(wrapper, tmp_path, steering_factors=factors, loss_output_dir=str(tmp_path), preference_pairs=pairs)
    rows = logged(tmp_path)
    apart = sum(row["pos_steering_factors"] != row["neg_steering_factors"] for row in rows)
    measured(f"{' and '.join(pairs)}: batches whose two answers had different factors", f"{apart} of {len(rows)}")
    assert apart == 0
    assert len({row["pos_steering_factors"] for row in rows}) > 1
    signs = {row["pos_steering_factors"].startswith("tensor([-") for row in rows}
    assert signs == ({False} if len(pairs) == 1 else {False, True})


def together_and_each(wrapper: Any, tmp_path: Path, column: str, **values: Any) -> tuple[float, float]:
    """A column of the log for one batch of all pairs, and its mean over batches of one, both with learning rate 0."""
    found = []
    for size in (5, 1):
        folder = tmp_path / str(size)
        folder.mkdir()
        train(wrapper, tmp_path, batch_size=size, lr=0.0, loss_output_dir=str(folder), **values)
        logged_values = [float(row[column]) for row in logged(folder)]
        found.append(sum(logged_values) / len(logged_values))
    return found[0], found[1]


def test_hinge_is_taken_for_each_pair(wrapper: Any, tmp_path: Path) -> None:
    penalty = {"margin_penalty_weight": 1.0, "margin_threshold": 0.05}
    together, each = together_and_each(wrapper, tmp_path, "margin_loss", **penalty)
    measured("hinge of five pairs in one batch, nats", together)
    measured("mean hinge of the same pairs one by one, nats", each)
    assert abs(together - each) < 1e-5


def test_pairs_of_a_batch_weigh_the_same(wrapper: Any, tmp_path: Path) -> None:
    together, each = together_and_each(wrapper, tmp_path, "pos_steer_loss")
    measured("loss of five wanted answers in one batch, nats a token", together)
    measured("mean loss of the same answers one by one, nats a token", each)
    assert abs(together - each) < 1e-5


# --- 05 -------------------------------------------------------------------------------------------------------------


def lora_effect(wrapper: Any, state: dict[str, Any], tmp_path: Path, alpha: int) -> torch.Tensor:
    tmp_path.mkdir()
    torch.save({**state, "alpha": alpha}, tmp_path / f"layer_{LAYER}.pt")
    wrapper.reset_all()
    plain = logits(wrapper)
    applied(wrapper, "lora", layers=[LAYER], multipliers=[1e-3], steer_vector_load_dir=str(tmp_path))
    return logits(wrapper) - plain


def test_lora_alpha_scales(wrapper: Any, tmp_path: Path) -> None:
    """Kept as the file says it, and the change it makes (small, so that it is linear) is alpha over rank."""
    field = (
        "lora_alpha"
        in host_module("steer.utils.alg_dict").HYPERPARAMS_CLASS_DICT["spilt"]["train"].__dataclass_fields__
    )
    more = {"lora_alpha": 4 * RANK} if field else {}
    trained = train(wrapper, tmp_path, "lora", **more)[f"layer_{LAYER}"]
    alike = lora_effect(wrapper, trained, tmp_path / "rank", RANK)
    scaled = lora_effect(wrapper, trained, tmp_path / "alpha", 4 * RANK)
    ratio = float(scaled.norm() / alike.norm())
    measured("alpha kept for lora_alpha: 12 at rank 3", trained["alpha"] if field else f"{trained['alpha']} (no field)")
    measured("effect of alpha = 4 ranks over that of alpha = rank", ratio)
    assert field and trained["alpha"] == 4 * RANK
    assert ratio == pytest.approx(4.0, rel=1e-2)


def test_shipped_lora_files_parse_and_have_no_alpha() -> None:
    files = [path for method in ("sft", "spilt") for path in EXPERIMENTS.glob(f"*/*/{method}/generate_*lora*.yaml")]
    broken = 0
    for path in files:
        try:
            broken += "lora_alpha" in OmegaConf.load(path)
        except Exception:
            broken += 1
    measured("shipped LoRA files with a lora_alpha that never acted, or that do not parse", f"{broken} of {len(files)}")
    assert files and broken == 0


# --- 06 -------------------------------------------------------------------------------------------------------------


def vector_at(factor: float, **more: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input, output and direction of EasyEdit's vector intervention at one factor."""
    torch.manual_seed(3)
    intervention = host_module("steer.models.interventions").VectorIntervention(embed_dim=8, low_rank_dimension=1)
    intervention.subspaces = [{"steering_factor": torch.full((2,), factor), **more}]
    base = torch.randn(2, 3, 8)
    return base, intervention.forward(base).output.detach(), intervention.proj.weight.detach()[0]


def test_factor_zero_changes_nothing() -> None:
    """Unless nulling out is asked for; other factors add, asked or not."""
    base, output, direction = vector_at(0.0, null_it_out=True)
    along = (base @ direction).clamp_min(0) / direction.square().sum()
    assert torch.allclose(output, base - along.unsqueeze(-1) * direction, atol=1e-6)
    base, output, direction = vector_at(2.0, null_it_out=True)
    assert torch.allclose(output, base + 2 * direction, atol=1e-6)
    base, output, _ = vector_at(0.0)
    measured("change of the state at factor 0, part of its norm", float((output - base).norm() / base.norm()))
    assert torch.equal(output, base)


# --- 07 -------------------------------------------------------------------------------------------------------------


def test_prefix_length_is_that_of_the_template(wrapper: Any) -> None:
    found = host_module("steer.vector_generators.spilt.utils").get_prefix_length(wrapper.tokenizer)
    measured("prefix length, tokens", f"{found} of {Encoder(wrapper.tokenizer).prefix_length()}")
    assert found == Encoder(wrapper.tokenizer).prefix_length()


@pytest.mark.parametrize("method", ["spilt", "sft", "reps"])
def test_training_runs_without_help_for_templates(wrapper: Any, tmp_path: Path, method: str) -> None:
    registry = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT
    tokenizer, side = wrapper.tokenizer, wrapper.tokenizer.padding_side
    longest = tokenizer.model_max_length
    shell = upstream_shell(
        method, "vector", tmp_path, use_chat_template=True, output_length=180, steering_factors=[1.0]
    )
    try:
        trained = registry[method]["train"](shell, items(), model=wrapper)[f"layer_{LAYER}"]
    finally:
        tokenizer.padding_side, tokenizer.model_max_length = side, longest
    assert float(trained.abs().max()) > 0


# --- 08, 09 ---------------------------------------------------------------------------------------------------------


def test_accumulation_beyond_the_loader_trains(wrapper: Any, tmp_path: Path) -> None:
    trained = train(wrapper, tmp_path, batch_size=1, gradient_accumulation_steps=8)[f"layer_{LAYER}"]
    largest = float(trained["weight"].abs().max())
    measured("5 batches, 8 accumulation steps: largest weight trained", largest)
    assert largest > 0


def test_schedule_ends_with_the_last_step(wrapper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of five batches, two a step: six steps, whose rate falls from lr to lr / 6."""
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(wrapper, tmp_path, batch_size=1, gradient_accumulation_steps=2, n_epochs=2, lr=0.06)
    measured("rates of six steps with lr 0.06", ", ".join(f"{rate:.3f}" for rate in rates))
    assert rates == pytest.approx([0.06, 0.05, 0.04, 0.03, 0.02, 0.01])


@pytest.mark.parametrize("method", ["spilt", "reps"])
def test_last_batch_is_trained_on(wrapper: Any, tmp_path: Path, method: str) -> None:
    """Three pairs in batches of two, both directions: every wanted answer is seen once in each direction."""
    seen: list[int] = []
    hook = wrapper.model.register_forward_pre_hook(
        lambda m, a, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    shell = upstream_shell(
        method, "vector", tmp_path, batch_size=2, preference_pairs=["orig_add", "orig_sub"], use_chat_template=True
    )
    try:
        with for_upstream(wrapper.tokenizer):
            host_module("steer.utils.alg_dict").METHODS_CLASS_DICT[method]["train"](shell, items(3), model=wrapper)
        measured(f"{method}, 3 pairs in batches of 2: rows run, of 24", sum(seen))
    except Exception as error:
        measured(f"{method}, 3 pairs in batches of 2: rows run, of 24", f"{sum(seen)}, then {type(error).__name__}")
        raise
    finally:
        hook.remove()
        wrapper.reset_all()
    assert sum(seen) == 3 * 2 * 2 * 2  # pairs, directions, answers, with and without the change


# --- 10 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spilt", "sft", "reps"])
def test_resume_file_is_json(tmp_path: Path, method: str) -> None:
    utils = host_module(f"steer.vector_generators.{method}.utils")
    utils.save_state(str(tmp_path / "new"), {"last_concept_id": 7}, state_file="state.json")
    assert utils.load_state(str(tmp_path / "new"), state_file="state.json") == {"last_concept_id": 7}
    assert utils.load_state(str(tmp_path / "nowhere"), state_file="state.json") is None
    text = (tmp_path / "new" / "state.json").read_bytes()
    measured(f"{method}: the resume file", "a pickle" if text[:1] == b"\x80" else text.decode())
    assert json.loads(text) == {"last_concept_id": 7}
    (tmp_path / "state.json").write_bytes(pickle.dumps({"last_concept_id": 7}))
    with pytest.raises((ValueError, UnicodeDecodeError)):
        utils.load_state(str(tmp_path), state_file="state.json")
    generator = (CHECKOUT / f"steer/vector_generators/{method}/generate_{method}.py").read_text(encoding="utf-8")
    assert ".pkl" not in generator


# --- 11, 12 ---------------------------------------------------------------------------------------------------------


def test_original_output_is_not_steered(wrapper: Any, tmp_path: Path) -> None:
    train(wrapper, tmp_path, lr=0.5)
    ids, options = torch.arange(40, 50)[None], {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    wrapper.reset_all()
    plain = wrapper.model.generate(input_ids=ids, **options)
    folder = str(tmp_path / "spilt_local_weight")
    applied(wrapper, "local_weight", layers=[LAYER], multipliers=[20.0], steer_vector_load_dir=folder)
    steered = wrapper.model.generate(input_ids=ids, **options)
    original = wrapper.ori_generate(ids, **options)
    same = sum(a == b for a, b in zip(original[0].tolist(), plain[0].tolist(), strict=False)) - ids.shape[1]
    measured("tokens of the original output that are the model's own, of 8", same)
    assert torch.equal(original, plain)
    assert torch.equal(wrapper.model.generate(input_ids=ids, **options), steered)
    assert not torch.equal(steered, plain)


@pytest.mark.parametrize("form", ["vector", "lora", "local_weight"])
def test_reps_divides_by_the_answers_length(
    wrapper: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its losses are the published ones (with the ablation at both signs, which is another departure)."""
    change = change_of(wrapper, form)
    published = our_step(wrapper, change, RepsObjective(), "both")
    ablate_everywhere(monkeypatch)
    theirs = upstream_reps(wrapper, change, tmp_path, Watched(monkeypatch, answer_lengths=False), "both")
    ratios = theirs.values() / published.values()
    measured(
        f"RePS, {form}: a pair's loss over the published one", f"{float(ratios.min()):.3f} to {float(ratios.max()):.3f}"
    )
    assert torch.allclose(ratios, torch.ones_like(ratios), rtol=1e-4, atol=0)


# --- 13, 14, 15 -----------------------------------------------------------------------------------------------------

DATASETS, MODELS = ("psychopathy", "powerseeking", "axbench"), ("gemma-2-9b-it", "qwen2.5-7b-it")
RUNS = [("spilt", form) for form in FORMS] + [("sft", form) for form in FORMS] + [("reps", form) for form in FORMS]


def runner() -> Any:
    spec = importlib.util.spec_from_file_location("run_SPILT", CHECKOUT / "examples" / "run_SPILT.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runner_finds_every_file() -> None:
    """For each data set, model, method and form; and the file says that form, and a concept."""
    missing, wrong, module = 0, 0, runner()
    for dataset, model, (method, form) in itertools.product(DATASETS, MODELS, RUNS):
        path = module._resolve_generate_hparam(str(CHECKOUT), dataset, model, method, form)
        applied_by = module._resolve_apply_hparam(str(CHECKOUT), dataset, model, method)
        missing += path is None
        try:
            wrong += path is not None and OmegaConf.load(path).intervention_method != form
            wrong += "concept_id" not in OmegaConf.load(applied_by)
        except Exception:
            wrong += 1
    measured("method files that the runner does not find, of 54", missing)
    measured("method files that do not parse, name another form, or apply without a concept", wrong)
    assert missing == wrong == 0


def test_shell_script_names_what_exists() -> None:
    text = (CHECKOUT / "examples" / "run_SPILT.sh").read_text(encoding="utf-8")
    scripts = re.findall(r"python (\S+\.py)", text)
    methods, models = re.findall(r"--method (\S+)", text), re.findall(r"--model_name (\S+)", text)
    known = {"all", *runner().VALID_METHODS}
    off = sum(not (CHECKOUT / s).is_file() for s in scripts) + len([m for m in methods if m not in known])
    off += sum(not (EXPERIMENTS / "psychopathy" / m).is_dir() for m in models)
    measured("names in run_SPILT.sh that do not exist", f"{off} of {len(scripts) + len(methods) + len(models)}")
    assert scripts and off == 0
    guide = (CHECKOUT / "examples" / "SPLIT.md").read_text(encoding="utf-8")
    assert all((CHECKOUT / script).is_file() for script in re.findall(r"python (\S+\.py)", guide))


def test_every_data_set_can_be_applied() -> None:
    listed = OmegaConf.load(CHECKOUT / "hparams" / "Steer" / "dataset_format.yaml")
    lacking = [name for name in ("psychopathy", "powerseeking") if name not in listed.generation]
    measured("data sets of the experiments that cannot be applied", ", ".join(lacking) or "none")
    assert not lacking
    assert listed.generation.powerseeking.file_path.endswith("test.csv")
    assert "SPLIT" in (CHECKOUT / "README_2.md").read_text(encoding="utf-8")


def test_printed_folder_is_the_one_written(wrapper: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path, Path(wrapper.model_name_or_path), [write_method(tmp_path / "m.yaml", "lora")], items(2))
    said = re.findall(r"Saving vectors to (\S+)", capsys.readouterr().out)
    written = [path.name for path in (tmp_path / "vectors" / "mine").iterdir()]
    measured("folder printed, and folder written", f"{Path(said[0]).name}, {', '.join(written)}")
    assert Path(said[0]).is_dir()


def test_split_is_a_method_of_plain_easyedit() -> None:
    """Without launcher, Hydra plugin or a call of `register`; EasyEdit's own methods are as they were."""
    done = plain_python(
        "import steer.utils.alg_dict as registry\n"
        "print('split' in registry.METHODS_CLASS_DICT, 'spilt' in registry.METHODS_CLASS_DICT)\n"
    )
    measured("'split' is a method", done.stdout.split()[0] if done.stdout.split() else "no import")
    assert done.stdout.split() == ["True", "True"], done.stderr
    files = list((CHECKOUT / "hparams" / "Steer" / "split_hparams").glob("*.yaml"))
    assert len(files) == 18 and all(OmegaConf.load(path).alg_name == "split" for path in files)
    assert "easyedit-split" in (CHECKOUT / "requirements_2.txt").read_text(encoding="utf-8")
