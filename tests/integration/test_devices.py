"""Tensors stay where they belong: on one device, over two, and offloaded; and a step rarely waits for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from everything import differences, results
from laws import TEXT_PAIRS, noisy
from tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import FORMS
from easyedit_split.errors import NotMergeableError, SiteError
from easyedit_split.generation import generate
from easyedit_split.models.identity import model_fingerprint
from easyedit_split.models.sites import Site
from easyedit_split.scoring.promoted_tokens import promoted_tokens
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.sweeps.run import sweep
from easyedit_split.training.diff_mean import diff_mean
from easyedit_split.training.trainer import train

SCRIPT = Path(__file__).with_name("two_devices.py")
# attention is computed by other kernels there, and AdamW's first steps divide a gradient by its own size
TOLERANCE = 1e-3
# case -> architecture, form, where the model is put: all on one card, or spread as `over_cards(model, cut, head)` says
CASES: dict[str, tuple[str, str, tuple[int, int] | None]] = {
    "qwen2 on one card": ("qwen2", "vector", None),
    "phi3 over two, steered on the first": ("phi3", "lora", (2, 1)),
    "qwen2 over two, steered on the second": ("qwen2", "local_weight", (1, 1)),
    "gemma2 over two, tied embeddings": ("gemma2", "local_weight", (1, 0)),
    "gpt2 over two, tied embeddings": ("gpt2", "vector", (1, 0)),
}


def test_on_make_believe_cards_as_on_the_processor(tmp_path: Path) -> None:
    """In a process of its own, because torch keeps a device that was made known to it.

    A step waits for its card twice, for the losses (are they finite?) and for the gradient's norm, however many batches
    make the step.
    """
    path = tmp_path / "answers.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, str(SCRIPT), str(path), json.dumps(CASES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answers = json.loads(path.read_text(encoding="utf-8"))
    assert answers.pop("waits") == 2
    assert answers.keys() == CASES.keys()
    for case, answer in answers.items():
        assert differences(answer["found"], answer["expected"], TOLERANCE) == [], case


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_on_a_gpu_as_on_the_processor(kind: str, form: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    assert differences(results(tiny_model(kind).cuda(), form), results(tiny_model(kind), form), TOLERANCE) == []


@pytest.mark.parametrize("form", ["vector", "lora", "local_weight"])
@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_offloaded_weights_train_sweep_and_generate(kind: str, form: str, tmp_path: Path) -> None:
    def results(model: Any) -> list[Any]:
        tokenizer, config = tiny_tokenizer(), TrainConfig(n_epochs=2, batch_size=2, lr=0.01, rank=2)
        artifact = train(model, tokenizer, TEXT_PAIRS, site=Site(1), form=form, config=config)
        table = sweep(model, tokenizer, TEXT_PAIRS, artifact, [-2.0, 0.0, 3.0], "sum")
        with artifact.attach(model, 3.0):
            texts = generate(model, tokenizer, ["Was it good?", "Why?"], max_new_tokens=4)
        estimate = diff_mean(model, tokenizer, TEXT_PAIRS, layer=1)
        return [*artifact.delta.tensors().values(), torch.from_numpy(np.stack([table.loss_pos, table.loss_neg])),
                estimate.delta.tensors()["db"], texts, promoted_tokens(model, tokenizer, estimate)]  # fmt: skip

    *numbers, texts, promoted = results(tiny_model(kind))
    here = torch.device("cpu")
    for model in (cpu_offload(tiny_model(kind), here), disk_offload(tiny_model(kind), str(tmp_path), here)):
        *found, found_texts, found_promoted = results(model)
        for value, expected in zip(found, numbers, strict=True):
            # by their norms: AdamW moves an entry by lr however small its gradient is, so that a few entries whose
            # gradients are rounding alone come out anywhere
            assert (value - expected).norm() <= TOLERANCE * expected.norm()
        assert found_texts == texts
        assert [t.token_id for t in found_promoted] == [t.token_id for t in promoted]
        assert all(parameter.is_meta for parameter in model.parameters())


def test_offloaded_weights_are_not_merged_into() -> None:
    model = cpu_offload(tiny_model("qwen2"), torch.device("cpu"))
    with pytest.raises(NotMergeableError, match="offloaded: attach the change, or load without device_map"):
        noisy(model).merge(model, 1.0)


@pytest.mark.parametrize(("form", "bias"), [("lora", "refuse"), ("vector", "lora_bias")])
def test_adapters_of_an_offloaded_model(form: str, bias: str, tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    artifact = noisy(model, form)
    offloaded = cpu_offload(tiny_model("qwen2"), torch.device("cpu"))
    folders = [
        artifact.to_peft(tmp_path / name, model=m, bias=bias).folder for name, m in (("a", model), ("b", offloaded))
    ]
    first, second = (SteeringArtifact.from_peft(folder) for folder in folders)
    assert first.site == second.site
    for name, tensor in first.delta.tensors().items():
        assert torch.equal(tensor, second.delta.tensors()[name])


def test_a_model_without_weights_is_refused() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_model("qwen2").config)
    with pytest.raises(SiteError, match="no weights"):
        train(model, tiny_tokenizer(), TEXT_PAIRS, site=Site(1), form="vector")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_offloaded_weights_have_the_fingerprint_of_loaded_ones(kind: str) -> None:
    offloaded = cpu_offload(tiny_model(kind), torch.device("cpu"))
    assert model_fingerprint(offloaded) == model_fingerprint(tiny_model(kind))
    assert model_fingerprint(offloaded) != model_fingerprint(tiny_model(kind, seed=1))
