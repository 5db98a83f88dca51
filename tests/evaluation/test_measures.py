"""Accuracy, harmonic mean and text measures against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import DataError
from easyedit_split.evaluation.accuracy import generation_accuracy, likelihood_accuracy, starts_with_answer
from easyedit_split.evaluation.harmonic import harmonic_mean, mean_harmonic
from easyedit_split.evaluation.perplexity import perplexity
from easyedit_split.evaluation.text import distinct_n, repetition, text_measures
from easyedit_split.scoring.scorer import sequence_nll


def test_likelihood_accuracy_counts_wins_and_half_ties() -> None:
    assert likelihood_accuracy([1.0, 2.0, 3.0, 1.0], [2.0, 1.0, 3.0, 4.0]) == 2.5 / 4


@pytest.mark.parametrize(("pos", "neg"), [([], []), ([1.0], [1.0, 2.0]), ([float("nan")], [1.0])])
def test_likelihood_accuracy_refuses_what_it_cannot_compare(pos: list[float], neg: list[float]) -> None:
    with pytest.raises(DataError):
        likelihood_accuracy(pos, neg)


@pytest.mark.parametrize(
    ("text", "answer", "starts"),
    [
        ("Yes", " Yes", True), (" yes, I do", "Yes", True), ("YES.", "yes", True), ("Yesterday", "Yes", False),
        ("No", "Yes", False), ("", "Yes", False), ("I say Yes", "Yes", False),
    ],
)  # fmt: skip
def test_starts_with_answer(text: str, answer: str, starts: bool) -> None:
    assert starts_with_answer(text, answer) is starts


def test_generation_accuracy_counts_neither_as_wrong_and_says_so() -> None:
    pairs = [PreferencePair(f"q{i}", " Yes", " No") for i in range(4)]
    assert generation_accuracy(["Yes", "No", "Maybe", "yes!"], pairs) == (0.5, 0.75)
    with pytest.raises(DataError):
        generation_accuracy(["Yes"], pairs)


def test_harmonic_mean_by_hand() -> None:
    assert harmonic_mean([2, 2, 2]) == pytest.approx(2)
    assert harmonic_mean([1, 2]) == pytest.approx(4 / 3)
    assert harmonic_mean([1, 1, 2]) == pytest.approx(3 / 2.5)


def test_harmonic_mean_is_zero_with_a_zero_and_missing_with_a_missing() -> None:
    assert harmonic_mean([0, 2, 2]) == 0
    assert harmonic_mean([None, 2, 2]) is None
    assert harmonic_mean([None, 0, 2]) is None
    with pytest.raises(DataError):
        harmonic_mean([])
    with pytest.raises(DataError):
        harmonic_mean([-1, 2])


def test_mean_harmonic_is_a_generation_at_a_time_and_leaves_missing_out() -> None:
    # per generation: 2, 0, missing -> mean 1; the harmonic mean of the column means would be another number
    assert mean_harmonic([[2, 0, None], [2, 2, 2]]) == (1.0, 1)
    assert mean_harmonic([[None], [1]]) == (None, 1)


def test_distinct_and_repetition_by_hand() -> None:
    assert distinct_n(["a b a", "a c"], 1) == 3 / 5
    assert distinct_n(["a b a", "a b"], 2) == 2 / 3
    assert distinct_n(["a"], 2) is None
    assert repetition("a b c a b c a") == pytest.approx(1 - 3 / 5)
    assert repetition("a b c d") == 0
    assert repetition("") == 0


def test_text_measures_by_hand() -> None:
    found = text_measures(["a b c", ""])
    assert found["length"] == 1.5
    assert found["empty"] == 0.5
    assert found["distinct_1"] == 1
    with pytest.raises(DataError):
        text_measures([])


@pytest.mark.parametrize("chat", [True, False])
def test_perplexity_is_the_exponential_of_the_mean_token_loss(chat: bool) -> None:
    model, tokenizer = tiny_model("qwen2"), tiny_tokenizer()
    questions, texts = ["one", "another question"], ["a text", ""]
    encoder = Encoder(tokenizer, chat)
    loss, tokens = 0.0, 0
    for question, text in zip(questions, texts, strict=True):
        answer = encoder.answer(text)
        with torch.no_grad():
            loss += sequence_nll(model, encoder.prompt(question), answer, "sum")
        tokens += len(answer)
    found = perplexity(model, tokenizer, questions, texts, chat=chat)
    assert math.log(found) == pytest.approx(loss / tokens, rel=1e-5)  # float32 sums in another batch shape


def test_perplexity_needs_a_text_a_question() -> None:
    with pytest.raises(DataError):
        perplexity(tiny_model("qwen2"), tiny_tokenizer(), ["q"], [])
