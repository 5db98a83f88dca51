"""One cell: train, sweep, fit, choose the strength, generate, judge; one result file, written atomically."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis import transfer
from ..analysis.pareto import front_at_budgets
from ..changes.artifact import SteeringArtifact
from ..changes.provenance import versions
from ..data.pairs import PreferencePair
from ..errors import FitError, ProgressError
from ..evaluation.accuracy import generation_accuracy, likelihood_accuracy
from ..evaluation.perplexity import perplexity
from ..evaluation.text import text_measures
from ..generation import generate
from ..models.loading import load_model
from ..models.protocols import CausalLM, Tokenizer
from ..scoring.prefix_reuse import shared_prefixes
from ..settings.hyperparameters import Hyperparameters
from ..storage.locks import folder_lock
from ..sweeps.factors import sweep_factors
from ..sweeps.refine import refine
from ..sweeps.run import sweep
from ..sweeps.table import SweepTable
from ..training.from_settings import layers_of_one, train_layer
from ..training.plan import Plan
from ..training.suited import suited
from .grid import Cell
from .judging import headline_score, verdict
from .prepare import Prepared
from .results import read_result, write_result
from .settings import GridSettings, metrics
from .strength import Choice, budgets_of, choose, choose_by_grid

NO_CHANGE = Choice(0.0, "nothing is attached")


@dataclass(frozen=True)
class Task:
    """A cell with everything a process needs to run it."""

    cell: Cell
    settings: GridSettings
    data: Prepared
    inputs: str
    hp: Hyperparameters | None  # None for vanilla; read once, so that a file changed meanwhile cannot slip in

    @property
    def folder(self) -> Path:
        return self.settings.output / "cells" / self.cell.key

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    def progress_file(self, stage: str) -> Path:
        """Where a stage keeps its progress; other inputs, versions or devices have another file."""
        run = [self.inputs, versions(), self.settings.device, self.settings.device_map]
        return self.folder / f".{stage}-{hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16]}.progress"


def run_cell(task: Task) -> dict[str, Any]:
    """Run what is missing of a cell and write its result; returns it.

    The numbers are kept before the judge is asked, so that a judge that fails or changes costs no training. Training
    and sweeps keep their progress in the cell's folder until then, and one process at a time works there: what a
    killed run had begun is taken up, and what its last worker still finishes is not done again.

    Raises:
        SteeringError: the cell cannot be run; its message says why.
    """
    with folder_lock(task.folder, wait=True):
        start = time.monotonic()
        result = read_result(task.result_file)
        if result is None or result["inputs"] != task.inputs:
            result = {"inputs": task.inputs, "cell": asdict(task.cell), **_taken_up(task)}
            result["seconds"] = time.monotonic() - start
            write_result(task.result_file, result)
        _drop_progress(task)
        judged = verdict(task.settings, task.cell, task.data, result)
        if result.get("judge") != judged:
            result["judge"] = judged
            write_result(task.result_file, result)
    return result


def _taken_up(task: Task) -> dict[str, Any]:
    """The numbers, with what an earlier run had begun; where that cannot be read, from the start."""
    with shared_prefixes():
        try:
            return _measured(task)
        except ProgressError:
            _drop_progress(task)
            return _measured(task)


def _drop_progress(task: Task) -> None:
    for leftover in task.folder.glob(".*.progress"):
        leftover.unlink()


@lru_cache(maxsize=1)
def cached_model(name: str, dtype: str, device: str, device_map: str | None) -> tuple[CausalLM, Tokenizer]:
    """Model and tokenizer, loaded once a process."""
    return load_model(name, dtype=dtype, device=device, device_map=device_map)


def grid_model(settings: GridSettings) -> tuple[CausalLM, Tokenizer]:
    """The grid's model and tokenizer."""
    return cached_model(settings.model, settings.dtype, settings.device, settings.device_map)


def _measured(task: Task) -> dict[str, Any]:
    model, tokenizer = grid_model(task.settings)
    artifact: SteeringArtifact | None = None
    found: dict[str, Any] = {}
    choice = NO_CHANGE
    if task.hp is not None:
        hp = suited(task.hp, model, tokenizer, task.data.train).hp
        artifact = _trained(task, hp, model, tokenizer)
        found, choice = _swept(task, model, tokenizer, artifact)
        found["training"] = _training(hp, len(task.data.train))
    at = sweep(model, tokenizer, task.data.test, artifact, [choice.m], "sum")
    found |= {"strength": {"m": choice.m, "rule": choice.rule}, "at_strength": _log_odds(at)}
    found |= _generated(task, model, tokenizer, artifact, choice.m)
    found["scores"] = {"likelihood accuracy": likelihood_accuracy(at.loss_pos[0], at.loss_neg[0]), **found["scores"]}
    return found


def _trained(task: Task, hp: Hyperparameters, model: CausalLM, tokenizer: Tokenizer) -> SteeringArtifact:
    layers = layers_of_one(hp)
    artifact = train_layer(hp, model, tokenizer, task.data.train, layers, task.progress_file("training"))
    artifact.save(task.folder)
    return artifact


def _training(hp: Hyperparameters, pairs: int) -> dict[str, float]:
    """What a comparison of methods has to hold equal: pairs, epochs, updates of the optimiser, its learning rate."""
    if hp.objective_name == "diff_mean":
        return {"pairs": pairs, "epochs": 0, "updates": 0}
    return {"pairs": pairs, "epochs": hp.n_epochs, "updates": Plan(pairs, hp.train_config()).steps, "lr": hp.lr}


def _swept(
    task: Task, model: CausalLM, tokenizer: Tokenizer, artifact: SteeringArtifact
) -> tuple[dict[str, Any], Choice]:
    settings, data = task.settings, task.data
    factors: Any = settings.factors or sweep_factors(model, tokenizer, data.held_out, artifact, settings.points)
    tables = {
        part: sweep(
            model, tokenizer, list(pairs), artifact, factors, "sum", partial=task.progress_file(f"sweep_{part}")
        )
        for part, pairs in (
            ("held_out", data.held_out),
            ("train", data.train[: settings.n_train_sweep]),
            ("test", data.test),
        )
    }
    for part in ("train", "test"):
        tables[part].save(task.folder / f"sweep_{part}.parquet")
    found = {"front": front_at_budgets(tables["test"], settings.n_boot), "fits": _fits(tables["train"], tables["test"])}
    held_out = tables["held_out"]
    for budget in budgets_of(settings.strength, settings.budget):
        held_out = refine(model, tokenizer, list(data.held_out), artifact, held_out, budget)
    return found, _chosen(task, model, tokenizer, artifact, held_out)


def _chosen(
    task: Task, model: CausalLM, tokenizer: Tokenizer, artifact: SteeringArtifact, held_out: SweepTable
) -> Choice:
    settings, pairs = task.settings, task.data.held_out

    def score(m: float) -> float | None:
        texts = _texts(task, model, tokenizer, artifact, m, pairs)
        return headline_score(settings, task.cell.dataset, pairs, texts)

    if settings.strength == "grid":
        return choose_by_grid(held_out, score, settings.budget)
    return choose(held_out, settings.budget)


def _fits(train: SweepTable, test: SweepTable) -> dict[str, Any]:
    """R^2 of the training sweep's fits on both sweeps (Table 6), and of the test sweep's own fits (Table 5)."""
    try:
        across, own = transfer(train, test), transfer(test, test)
    except FitError as error:
        return {"message": str(error)}
    return {
        "preference, train": across.preference_train, "preference, test": across.preference_test,
        "utility, train": across.utility_train, "utility, test": across.utility_test,
        "preference": own.preference_train, "utility": own.utility_train,
    }  # fmt: skip


def _log_odds(at: SweepTable) -> dict[str, float]:
    return {"preference": float(at.preference().mean()), "utility": float(np.nanmean(at.utility()))}


def _generated(
    task: Task, model: CausalLM, tokenizer: Tokenizer, artifact: SteeringArtifact | None, m: float
) -> dict[str, Any]:
    """Texts at the chosen strength, and what can be said of them without a judge."""
    pairs = task.data.test
    texts = _texts(task, model, tokenizer, artifact, m, pairs)
    offline: dict[str, float | None] = dict(text_measures(texts))
    offline["perplexity"] = perplexity(model, tokenizer, [p.question for p in pairs], texts, **_prompting(task.hp))
    return {"texts": texts, "offline": offline, "scores": _accuracy(task.cell.dataset, texts, pairs)}


def _texts(
    task: Task,
    model: CausalLM,
    tokenizer: Tokenizer,
    artifact: SteeringArtifact | None,
    m: float,
    pairs: Sequence[PreferencePair],
) -> list[str]:
    with artifact.attach(model, m) if artifact else contextlib.nullcontext():
        return generate(
            model,
            tokenizer,
            [p.question for p in pairs],
            max_new_tokens=task.settings.max_new_tokens,
            batch_size=64,
            **_prompting(task.hp),
        )


def _prompting(hp: Hyperparameters | None) -> dict[str, Any]:
    return {"chat": hp.use_chat_template, "system_prompt": hp.system_prompt} if hp else {}


def _accuracy(dataset: str, texts: Sequence[str], pairs: Sequence[PreferencePair]) -> dict[str, float]:
    if metrics(dataset) != ("accuracy",):
        return {}
    right, answered = generation_accuracy(texts, pairs)
    return {"accuracy": right, "answered": answered}
