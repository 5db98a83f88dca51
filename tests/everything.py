"""Everything that runs a model: what a test compares between one place for its weights and another."""

from __future__ import annotations

from typing import Any

import numpy as np
from laws import TEXT_PAIRS
from tiny import tiny_tokenizer

from easyedit_split.evaluation.perplexity import perplexity
from easyedit_split.generation import generate
from easyedit_split.models.sites import Site
from easyedit_split.scoring.activations import collect_activations
from easyedit_split.scoring.promoted_tokens import promoted_tokens
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.sweeps.run import sweep
from easyedit_split.training.diff_mean import diff_mean
from easyedit_split.training.objectives import RepsObjective, SftObjective, SplitObjective
from easyedit_split.training.trainer import train

QUESTIONS = [pair.question for pair in TEXT_PAIRS]
RUNS: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "split": (SplitObjective(), ("add", "sub"), "all"),
    "reps": (RepsObjective(), ("add", "sub"), "answer"),
    "sft": (SftObjective(), ("add",), "after_prefix"),
}


def results(model: Any, form: str) -> dict[str, Any]:
    """Numbers as lists, texts as they are."""
    tokenizer = tiny_tokenizer()
    found: dict[str, Any] = {"diff_mean": diff_mean(model, tokenizer, TEXT_PAIRS, layer=1).delta.tensors()["db"]}
    for name, (objective, directions, positions) in RUNS.items():
        config = TrainConfig(n_epochs=1, batch_size=2, lr=0.01, rank=2, directions=directions, positions=positions)
        artifact = train(
            model, tokenizer, TEXT_PAIRS, site=Site(1), form=form, objective=objective, config=config,
        )  # fmt: skip
        found.update({f"{name} {key}": value for key, value in artifact.delta.tensors().items()})
        found[f"{name} sweep"] = sweep(model, tokenizer, TEXT_PAIRS, artifact, [-2.0, 0.0, 3.0], "sum").loss_pos
        with artifact.attach(model, 3.0):
            found[f"{name} texts"] = generate(model, tokenizer, QUESTIONS, max_new_tokens=3)
    found["perplexity"] = [perplexity(model, tokenizer, QUESTIONS, ["so", "it", "is", "not", "here"])]
    found["activations"] = np.concatenate(collect_activations(model, tokenizer, TEXT_PAIRS, artifact, [0.0, 2.0]))
    if form != "lora":
        found["promoted"] = [token.token_id for token in promoted_tokens(model, tokenizer, artifact, 3)]
    if form == "vector":
        config = TrainConfig(n_epochs=1, batch_size=2, lr=0.01)
        merged = train(model, tokenizer, TEXT_PAIRS, site=Site(1), form=form, config=config).merge(model, 2.0)
        found["texts, merged"] = generate(model, tokenizer, QUESTIONS, max_new_tokens=3)
        merged.undo()
    return {key: _listed(value) for key, value in found.items()}


def _listed(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def differences(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> list[str]:
    """Names of results that differ: texts and tokens at all, numbers by more than `tolerance` of the largest."""
    assert found.keys() == expected.keys()
    return [name for name, value in expected.items() if not _same(name, found[name], value, tolerance)]


def _same(name: str, found: Any, expected: Any, tolerance: float) -> bool:
    if "texts" in name or name == "promoted":
        return found == expected
    a, b = np.asarray(found), np.asarray(expected)
    return a.shape == b.shape and bool(np.abs(a - b).max() <= tolerance * np.abs(b).max())
