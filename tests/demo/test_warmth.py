"""The pairs in English: whole, equal in form, no question or answer twice, none of the test pairs among the others."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from easyedit_split.data.pairs import PreferencePair, flat_pairs, load_pairs
from easyedit_split.demo import data_path

SMALL = "a an the i my me you to do how what is it should can of in on for and was with s m t will"
SMALL_WORDS = frozenset(re.findall("[a-z]+", SMALL))


def pairs(split: str) -> list[PreferencePair]:
    return flat_pairs(load_pairs(data_path("warmth", split)))


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower()))


def test_sizes() -> None:
    assert (len(pairs("train")), len(pairs("test"))) == (122, 60)


def test_nothing_is_there_twice() -> None:
    every = [*pairs("train"), *pairs("test")]
    for texts in ([p.question for p in every], [a for p in every for a in (p.matching, p.not_matching)]):
        counts = Counter(" ".join(re.findall(r"[a-z]+", text.lower())) for text in texts)
        assert [text for text, n in counts.items() if n > 1] == []


def test_no_test_question_is_a_training_question_in_other_words() -> None:
    """Of the words that carry a question's meaning, a test question shares fewer than three quarters with any other."""
    train = [words(p.question) - SMALL_WORDS for p in pairs("train")]
    for pair in pairs("test"):
        own = words(pair.question) - SMALL_WORDS
        shared = max(len(own & other) / max(1, len(own | other)) for other in train)
        assert shared < 0.75, pair.question


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_answers_have_one_length_and_one_form(split: str) -> None:
    """In words: within half of each other in every pair, within a tenth on average; short; one or two sentences."""
    found = pairs(split)
    lengths = [(len(p.matching.split()), len(p.not_matching.split())) for p in found]
    for pair, (first, second) in zip(found, lengths, strict=True):
        assert 0.5 <= first / second <= 1.9, pair
        assert max(first, second) <= 21, pair
        for answer in (pair.matching, pair.not_matching):
            assert answer[0].isupper() and answer[-1] in ".!", pair
            assert 1 <= len(re.findall(r"[.!?](?= |$)", answer)) <= 3, pair
    matching, not_matching = (sum(column) for column in zip(*lengths, strict=True))
    assert 0.9 <= matching / not_matching <= 1.1


def test_questions_vary() -> None:
    """No first word opens half of the questions, and statements and questions are both there."""
    asked = [p.question for p in (*pairs("train"), *pairs("test"))]
    assert Counter(q.split()[0] for q in asked).most_common(1)[0][1] < 0.5 * len(asked)
    assert 0.3 < sum(q.endswith("?") for q in asked) / len(asked) < 0.7
