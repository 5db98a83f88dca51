"""Measures of a sweep's texts, each against its definition; beside them the unsteered model's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS, noisy

from easyedit_split import generate, sweep
from easyedit_split.analysis.texts import SweptTexts
from easyedit_split.data.tokens import Encoder
from easyedit_split.demo import TASKS, data_path
from easyedit_split.evaluation.demo import questions_of_other_tasks
from easyedit_split.evaluation.perplexity import perplexity, text_losses
from easyedit_split.evaluation.swept_texts import SAMPLES, UNRELATED, measure_texts
from easyedit_split.evaluation.text import repetition
from easyedit_split.scoring.scorer import sequence_nll
from easyedit_split.texts import write_texts

FACTORS = [2.0, -1.0, 0.0, 8.0]


def _measured(model: Any, tokenizer: Any, factors: list[float]) -> SweptTexts:
    artifact = noisy(model, "lora", layer=1, scale=3.0)
    table = sweep(model, tokenizer, TEXT_PAIRS, artifact, factors, "sum", chat=False)
    texts = write_texts(model, tokenizer, TEXT_PAIRS, artifact, table, 2, max_new_tokens=6)
    return measure_texts(model, tokenizer, artifact, table, texts)


def _perplexity(model: Any, encoder: Encoder, questions: Any, answers: Any) -> float:
    losses, tokens = 0.0, 0
    for question, answer in zip(questions, answers, strict=True):
        ids = encoder.answer(answer)[:-1] or encoder.answer(answer)
        losses += sequence_nll(model, encoder.prompt(question), ids, "sum")
        tokens += len(ids)
    return math.exp(losses / tokens)


def test_every_measure_is_what_it_says(lend: Any, tokenizer: Any) -> None:
    model, encoder = lend("qwen2"), Encoder(tokenizer, chat=False)
    texts = _measured(model, tokenizer, FACTORS)
    found, questions = texts.measures, list(texts.questions)
    expected = [_perplexity(model, encoder, questions, row) for row in texts.answers]
    np.testing.assert_allclose(found.perplexity, expected, rtol=1e-4)
    zero = texts.at(0.0)
    assert found.own_perplexity == pytest.approx(found.perplexity[zero])
    assert found.own_repetition == found.repetition[zero]
    np.testing.assert_allclose(found.repetition, [np.mean([repetition(t) for t in row]) for row in texts.answers])
    assert found.divergence[zero] == pytest.approx(0, abs=1e-6) and found.divergence.max() > 0.01
    np.testing.assert_allclose(found.dose / np.maximum(np.abs(texts.m), 1), [found.dose[0], 0, *[found.dose[0]] * 2])
    asked = questions * (SAMPLES // 2)
    samples = generate(
        model, tokenizer, asked, max_new_tokens=6, temperature=1.0, seed=0, chat=False, batch_size=SAMPLES
    )
    assert len(set(samples)) > SAMPLES / 2
    assert found.sampled_perplexity == pytest.approx(_perplexity(model, encoder, asked, samples), rel=1e-4)


def test_a_sweep_without_zero_is_judged_beside_the_unsteered_model_too(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    own, other = (_measured(model, tokenizer, f).measures for f in (FACTORS, [2.0, 8.0]))
    assert other.own_perplexity == pytest.approx(own.own_perplexity)
    assert other.sampled_perplexity == pytest.approx(own.sampled_perplexity)
    np.testing.assert_allclose(other.divergence, own.divergence[2:], rtol=1e-4)


def test_it_changes_neither_the_model_nor_the_random_state(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    artifact = noisy(model, "lora", layer=1)
    table = sweep(model, tokenizer, TEXT_PAIRS, artifact, FACTORS, "sum", chat=False)
    texts = write_texts(model, tokenizer, TEXT_PAIRS, artifact, table, 1, max_new_tokens=3)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    hooks, state = [len(m._forward_hooks) for m in model.modules()], torch.get_rng_state()
    measure_texts(model, tokenizer, artifact, table, texts)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(m._forward_hooks) for m in model.modules()] == hooks


def test_an_empty_answer_is_judged_by_its_end(lend: Any, tokenizer: Any) -> None:
    model, encoder = lend("qwen2"), Encoder(tokenizer, chat=False)
    ((loss, tokens),) = text_losses(model, tokenizer, ["q"], [""], chat=False, ended=False)
    assert tokens == 1
    assert loss == pytest.approx(sequence_nll(model, encoder.prompt("q"), [encoder.end_id], "sum"), rel=1e-5)


def test_perplexity_still_counts_the_end(lend: Any, tokenizer: Any) -> None:
    model, encoder = lend("qwen2"), Encoder(tokenizer, chat=False)
    expected = math.exp(sequence_nll(model, encoder.prompt("q"), encoder.answer("yes"), "mean"))
    assert perplexity(model, tokenizer, ["q"], ["yes"], chat=False) == pytest.approx(expected, rel=1e-5)


def test_prompts_of_the_micro_world_are_those_of_its_other_tasks() -> None:
    for task in TASKS:
        found, own = questions_of_other_tasks(task), data_path(task, "test").read_text()
        assert len(found) == 6 and not any(question in own for question in found)
    assert len(UNRELATED) == 6 and len(set(UNRELATED)) == 6
