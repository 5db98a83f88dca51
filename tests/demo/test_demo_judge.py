"""The micro-world's judge accepts its own grammar, refuses anything else, and scores as its table says."""

from __future__ import annotations

import random

import pytest

from easyedit_split.demo import TASKS, world
from easyedit_split.demo import lexicon as words
from easyedit_split.demo.judge import Verdict, judge
from easyedit_split.errors import DataError

REVIEW = "Write a review of the phone."
GOOD = "This phone is great. The battery is strong and the screen is bright. It was a good choice."
TALE = "How was your day?"
SEA = "I spent the day at the beach. I sailed a boat with a friend. Later I found a shell."


@pytest.mark.parametrize("task", TASKS)
def test_accepts_every_answer_of_the_files(task: str) -> None:
    for row in world.rows(task, "test"):
        question, concept = str(row["question"]), row.get("output_concept")
        verdicts = [judge(task, question, str(row[key]), concept) for key in ("matching", "not_matching")]
        assert verdicts == [Verdict(True, "positive", 2, 2, 2), Verdict(True, "negative", 0, 2, 2)]


def test_accepts_what_the_model_is_trained_on() -> None:
    undirected = {task: {item.question for item in world.ITEMS[task]()} for task in TASKS}
    seen = set()
    for example in world.corpus(600, seed=3):
        for task in TASKS:
            if example.question in undirected[task]:
                seen.add(task)
                assert judge(task, example.question, example.answer).well_formed, example
    assert seen == set(TASKS)


def test_rejects_shuffled_words() -> None:
    rng = random.Random(0)
    for row in world.rows("reviews", "test") + world.rows("concepts", "test"):
        task = "concepts" if "concept_id" in row else "reviews"
        tokens = str(row["matching"]).split()
        rng.shuffle(tokens)
        assert not judge(task, str(row["question"]), " ".join(tokens)).well_formed


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (GOOD, Verdict(True, "positive", 2, 2, 2)),
        (f"\n {GOOD} ", Verdict(True, "positive", 2, 2, 2)),
        (GOOD.replace("strong", "weak"), Verdict(True, "mixed", 1, 2, 2)),
        (GOOD.replace("phone", "laptop"), Verdict(True, "positive", 2, 1, 2)),
        (GOOD.replace("battery", "fabric"), Verdict(False, "positive", 2, 2, 1)),
        (GOOD.replace("battery is strong", "battery is bright"), Verdict(False, "positive", 2, 2, 1)),
        (GOOD + " " + GOOD, Verdict(False, "positive", 2, 2, 1)),
        (GOOD[:-1], Verdict(False, "positive", 2, 2, 1)),
        ("This phone is awful.", Verdict(False, "negative", 0, 2, 1)),
        ("great great great", Verdict(False, "positive", 2, 0, 0)),
        ("", Verdict(False, None, 0, 0, 0)),
    ],
)
def test_reviews(answer: str, expected: Verdict) -> None:
    assert judge("reviews", REVIEW, answer) == expected


@pytest.mark.parametrize(
    ("answer", "concept", "expected"),
    [
        (SEA, "the sea", Verdict(True, "positive", 2, 2, 2)),
        (SEA, None, Verdict(True, "positive", 2, 2, 2)),
        (SEA, "music", Verdict(True, "negative", 0, 2, 2)),
        (SEA.replace("shell", "drum"), "music", Verdict(True, "mixed", 1, 2, 2)),
        (SEA.replace("the day", "the trip"), "the sea", Verdict(True, "positive", 2, 1, 2)),
        (SEA.replace("sailed a boat", "sailed a drum"), "the sea", Verdict(False, "mixed", 1, 2, 1)),
        ("shell shell", "the sea", Verdict(False, "positive", 2, 0, 0)),
    ],
)
def test_concepts(answer: str, concept: str | None, expected: Verdict) -> None:
    assert judge("concepts", TALE, answer, concept) == expected


@pytest.mark.parametrize(
    ("act", "answer", "expected"),
    [
        ("cheat", " Yes", Verdict(True, "positive", 2, 2, 2)),
        ("cheat", " No", Verdict(True, "negative", 0, 2, 2)),
        ("thank", " No", Verdict(True, "positive", 2, 2, 2)),
        ("thank", "Yes", Verdict(True, "negative", 0, 2, 2)),
        ("thank", " Maybe", Verdict(True, None, 0, 1, 2)),
        ("thank", " Yes Yes", Verdict(False, None, 0, 0, 0)),
    ],
)
def test_traits(act: str, answer: str, expected: Verdict) -> None:
    question = words.TRAIT_QUESTION.format(statement=f"I would {act} a friend at work")
    assert judge("traits", question, answer) == expected


def test_refuses_what_is_not_of_the_world() -> None:
    with pytest.raises(DataError, match="no task 'tales'"):
        judge("tales", REVIEW, GOOD)
    with pytest.raises(DataError, match="no concept 'sea'; did you mean 'the sea'"):
        judge("concepts", TALE, SEA, "sea")
    for task in TASKS:
        with pytest.raises(DataError, match="'What is 2 \\+ 2\\?'"):
            judge(task, "What is 2 + 2?", GOOD)
