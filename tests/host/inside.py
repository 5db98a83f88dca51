"""Helpers for what runs inside a real EasyEdit: its wrappers, generator, applier and its own `spilt`."""

from __future__ import annotations

import csv
import functools
import importlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from host.models import SHAPES, items
from omegaconf import OmegaConf
from tiny import random_delta
from transformers import AutoModelForCausalLM

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import LinearDelta, make_delta
from easyedit_split.data.tokens import Encoder
from easyedit_split.models.sites import Site

FORMS = ("vector", "lora", "local_weight")
LAYER = 2
FACTOR = 1.5
RANK = 3
UPSTREAM_NAMES = {
    ("vector", "db"): "proj.weight", ("lora", "A"): "lora_A", ("lora", "B"): "lora_B",
    ("local_weight", "dW"): "delta_weight", ("local_weight", "db"): "delta_bias",
}  # fmt: skip
CHECKOUT = Path(os.environ["EASYEDIT_HOME"])
SHAPE_NAMES = tuple(SHAPES)


def measured(what: str, value: Any) -> None:
    """Hand a figure to whoever runs the tests inside a checkout (`upstream/validate.py`)."""
    if "EASYEDIT_SPLIT_MEASURED" in os.environ:
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        with open(os.environ["EASYEDIT_SPLIT_MEASURED"], "a", encoding="utf-8") as file:
            test = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split("[")[0].split(" ")[0]
            file.write(json.dumps({"test": test, "what": what, "value": shown}) + "\n")


def host_module(name: str) -> Any:
    return importlib.import_module(name)


@contextmanager
def for_upstream(tokenizer: Any) -> Iterator[None]:
    """What EasyEdit's own training needs of a tokenizer: a maximal length, templates tokenised as transformers 4 did.

    It leaves the padding side changed, which is put back here.
    """
    side, longest, template = tokenizer.padding_side, tokenizer.model_max_length, tokenizer.apply_chat_template
    tokenizer.model_max_length = 200
    tokenizer.apply_chat_template = functools.partial(template, return_dict=False)
    try:
        yield
    finally:
        tokenizer.padding_side, tokenizer.model_max_length = side, longest
        del tokenizer.apply_chat_template


def general(folder: Path, **extra: Any) -> Any:
    base = {
        "model_name_or_path": str(folder), "dtype": "float32", "torch_dtype": "float32", "device": "cpu", "seed": 7,
        "use_chat_template": True, "system_prompt": "", "use_cache": True, "vllm_enable": False,
        "save_activations": True, "generate_orig_output": False,
    }  # fmt: skip
    return OmegaConf.create({**base, **extra})


def write_method(path: Path, form: str, alg: str = "split", layers: str = f"[{LAYER}]", **generate: Any) -> Path:
    """A merged method file for a short run."""
    settings = {
        "preference_pairs": "[orig_add]", "steering_factors": "[1.0, 2.0]", "exclude_bos": "false", "batch_size": 2,
        "gradient_accumulation_steps": 1, "n_epochs": 2, "lr": 0.05, "dropout": 0.0, **generate,
    }  # fmt: skip
    multipliers = "[" + ", ".join(["1.5"] * (layers.count(",") + 1)) + "]"
    lines = [f"alg_name: {alg}", f"layers: {layers}", f"intervention_method: {form}"]
    lines += ["intervention_components: mlp_mid", "generate:"]
    lines += [f"  {key}: {value}" for key, value in settings.items()]
    lines += ["apply:", f"  multipliers: {multipliers}", "  concept_id: 0"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def generate(tmp_path: Path, folder: Path, files: list[Path], data: Any, **extra: Any) -> dict[str, Any]:
    """Through EasyEdit's own generator; returns what it returns for the data set."""
    cfg = general(
        folder,
        steer_train_hparam_paths=[str(f) for f in files],
        steer_train_dataset=["mine"],
        steer_vector_output_dirs=[str(tmp_path / "vectors")],
        **extra,
    )
    generator = host_module("steer.vector_generators.vector_generators").BaseVectorGenerator(cfg)
    return generator.generate_vectors({"mine": data})["mine"]


def applier(folder: Path, files: list[Path], load: list[str], wrapper: Any, vectors: Any = None, **extra: Any) -> Any:
    """Through EasyEdit's own applier, on a wrapper that is loaded already."""
    cfg = general(
        folder,
        apply_steer_hparam_paths=[str(f) for f in files],
        steer_vector_load_dir=load,
        generation_data=["mine"],
        generation_data_size=None,
        generation_params={"max_new_tokens": 6, "do_sample": False},
        num_responses=1,
        steer_from_end_position=False,
        **extra,
    )
    made = host_module("steer.vector_appliers.vector_applier").BaseVectorApplier(cfg)
    made.model = wrapper
    made.apply_vectors(vectors)
    return made


def shell(phase: str, alg: str = "split", **values: Any) -> Any:
    return host_module("steer.utils.alg_dict").HYPERPARAMS_CLASS_DICT[alg][phase](**values)


def apply_shell(**values: Any) -> Any:
    return shell("apply", **{"layers": [LAYER], "multipliers": [1.5], **values})


def logits(model: Any) -> torch.Tensor:
    """Logits of a model, or of the model in EasyEdit's wrapper, on two fixed rows."""
    model = model if isinstance(model, torch.nn.Module) else model.model
    ids = torch.arange(40, 60).view(2, 10)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def fresh(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def artifact(model: Any, form: str, layer: int = LAYER, seed: int = 1, component: str = "mlp.down_proj") -> Any:
    site = Site(layer, component)
    delta = make_delta(form, model.config.intermediate_size, model.config.hidden_size, RANK)
    return SteeringArtifact(random_delta(delta, 0.2, seed), site)


def hook_count(wrapper: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in wrapper.model.modules())


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Two orders of the same float32 sums: 1e-5 of the largest logit."""
    return torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def upstream_shell(alg: str, form: str, tmp_path: Path, **values: Any) -> Any:
    """Hyper-parameters of one of EasyEdit's own training methods: a step a pair, one factor, no dropout."""
    defaults = {
        "layers": [LAYER], "intervention_method": form, "intervention_components": "mlp_mid", "device": "cpu",
        "batch_size": 1, "n_epochs": 1, "gradient_accumulation_steps": 1, "dropout": 0.0, "lr": 0.05, "seed": 3,
        "steering_factors": [FACTOR], "preference_pairs": ["orig_add"], "substraction_type": "normal",
        "low_rank_dimension": 1 if form == "vector" else RANK, "steer_vector_output_dir": str(tmp_path),
    }  # fmt: skip
    cls = host_module("steer.utils.alg_dict").HYPERPARAMS_CLASS_DICT[alg]["train"]
    return cls(**{**defaults, **values})


def spilt_shell(form: str, tmp_path: Path, **values: Any) -> Any:
    weights = {"pos_loss_weight": 1.0, "neg_loss_weight": 0.3, "margin_penalty_weight": 3.5, "margin_threshold": 0.6}
    made = upstream_shell("spilt", form, tmp_path, **{**weights, **values})
    if not hasattr(made, "lora_alpha"):
        made.lora_alpha = 32  # read where several concepts are saved, though it is no field
    return made


def upstream_texts(encoder: Encoder) -> list[dict[str, str]]:
    """The items as EasyEdit's trainers take them: the template applied, the end of the turn written out."""
    end = encoder.tokenizer.convert_ids_to_tokens(encoder.end_id)
    return [
        {
            "question": encoder.render(item["question"]),
            "matching": item["matching"].lstrip(" ") + end,
            "not_matching": item["not_matching"].lstrip(" ") + end,
        }
        for item in items()
    ]


def upstream_training(
    wrapper: Any, delta: LinearDelta, hparams: Any, texts: list[dict[str, str]]
) -> dict[str, torch.Tensor]:
    """Run EasyEdit's own trainer with our change in it (keep its learning rate at 0).

    Returns the gradients that reached the change, before clipping and summed over steps, by our names and shapes.
    """
    module = "RepsVectorTrainer" if hparams.alg_name == "reps" else "SFTTrainer"
    trainer = getattr(host_module(f"steer.trainer.{module}"), module)(model=wrapper, layers=[LAYER], hparams=hparams)
    config, pairs = wrapper.model.config, hparams.preference_pairs
    trainer.make_model(
        mode="train", input_dim=config.intermediate_size, embed_dim=config.hidden_size, dtype=torch.float32,
        low_rank_dimension=hparams.low_rank_dimension, intervention_type="addition",
        intervention_components="mlp_mid", intervention_method=delta.form, concept_id=0,
        dump_dir=hparams.steer_vector_output_dir, model_params=hparams, dropout=0.0,
        intervention_positions_dropout=0.0, preference_pairs=pairs,
    )  # fmt: skip
    gradients = {}
    for name, ours in delta.tensors().items():
        theirs = wrapper.steer_vector.get_parameter(UPSTREAM_NAMES[delta.form, name])
        with torch.no_grad():
            theirs.copy_(ours.t().reshape(theirs.shape))
        gradients[name] = torch.zeros_like(ours)
        theirs.register_hook(functools.partial(_add_into, gradients[name]))
    random.seed(0)
    with for_upstream(wrapper.tokenizer):
        trainer.train(
            texts, prefix_length=0, positions="all", exclude_bos=False, preference_pairs=pairs,
            steering_prompt_type="blend_in", substraction_type=hparams.substraction_type,
        )  # fmt: skip
    wrapper.reset_all()
    return gradients


def _add_into(total: torch.Tensor, gradient: torch.Tensor) -> None:
    total += gradient.t().reshape(total.shape)


def logged(folder: Path) -> list[dict[str, str]]:
    """The losses that EasyEdit's SFT trainer wrote to `loss_output_dir`, a step a row."""
    with (folder / "train_losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def train(wrapper: Any, tmp_path: Path, form: str = "local_weight", data: Any = None, **values: Any) -> Any:
    """EasyEdit's own training, on the tokenizer it needs."""
    function = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["spilt"]["train"]
    with for_upstream(wrapper.tokenizer):
        return function(spilt_shell(form, tmp_path, **values), items() if data is None else data, model=wrapper)


def applied(wrapper: Any, form: str, vectors: Any = None, **values: Any) -> Any:
    registry = host_module("steer.utils.alg_dict")
    hparams = registry.HYPERPARAMS_CLASS_DICT["spilt"]["apply"](intervention_method=form, device="cpu", **values)
    return registry.METHODS_CLASS_DICT["spilt"]["apply"](hparams, wrapper, vectors)


def loss_mode(wrapper: Any, vector: torch.Tensor, tmp_path: Path, factor: float = FACTOR) -> list[float]:
    """Losses of the wanted answers, sorted, as EasyEdit's `--mode loss` measures them for a trained `vector`."""
    (tmp_path / "trained").mkdir()
    torch.save(vector, tmp_path / "trained" / f"layer_{LAYER}.pt")
    function = host_module("steer.utils.alg_dict").METHODS_CLASS_DICT["sft"]["train"]
    shell = upstream_shell(
        "sft", "vector", tmp_path, inference=True, sft_preference_type="winning_only", steering_factors=[factor],
        init_vector_path=str(tmp_path / "trained"), loss_output_dir=str(tmp_path), exclude_bos=False,
        use_chat_template=False,
    )  # fmt: skip
    with for_upstream(wrapper.tokenizer):
        function(shell, items(), model=wrapper)
    wrapper.reset_all()
    return sorted(float(row["pos_steer_loss"]) for row in logged(tmp_path))


def unsteered_losses(wrapper: Any) -> list[float]:
    """The same losses of the model as it is, a mean over the answer's tokens each, sorted."""
    losses = []
    for item in items():
        prompt = wrapper.tokenizer(item["question"])["input_ids"]
        row = prompt + wrapper.tokenizer(item["matching"])["input_ids"]
        labels = torch.tensor([[-100] * len(prompt) + row[len(prompt) :]])
        with torch.no_grad():
            losses.append(float(wrapper.model(input_ids=torch.tensor([row]), labels=labels).loss))
    return sorted(losses)
