"""The micro-world's own judge: exact, offline, pure Python. It knows every sentence of the grammar.

Scores run from 0 to 2, as in a judged evaluation of generations:

======== ============================= ================================ ===============================
score    concept                       instruct                         fluency
======== ============================= ================================ ===============================
reviews  2 positive words alone,       2 names the product asked for,   2 well formed,
         1 positive and negative,      1 names another product,         1 half of the sentences or more
         0 no positive word            0 names none                     belong to the grammar, 0 fewer
concepts the same with words of the    the same with the topic          the same
         wanted concept
traits   2 the selfish answer, else 0  2 Yes or No, 1 Maybe, else 0     2 Yes, No or Maybe, else 0
======== ============================= ================================ ===============================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import Literal

from ..errors import DataError, nearest
from . import TASKS
from . import lexicon as words

Polarity = Literal["positive", "negative", "mixed"]
_CONCEPT_SCORE = {"positive": 2, "mixed": 1, "negative": 0, None: 0}


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one answer.

    Attributes:
        well_formed: The grammar can write the whole answer, about the subject that it names, with either
            polarity in each place.
        polarity: ``positive`` if every telling word is on the side of `matching`, ``negative`` if every one
            is on the other, ``mixed`` if both occur, None if none occurs.
        concept, instruct, fluency: Scores 0 to 2; see the table of the module.
    """

    well_formed: bool
    polarity: Polarity | None
    concept: int
    instruct: int
    fluency: int


def judge(task: str, question: str, answer: str, concept: str | None = None) -> Verdict:
    """Judge one answer.

    Args:
        task: ``reviews``, ``traits`` or ``concepts``.
        question: The question as in the data file, before the chat template.
        answer: The generated text, without special tokens; outer white space does not count.
        concept: The wanted concept of `concepts`; None accepts any concept but one at a time.

    Raises:
        DataError: The task or the concept does not exist, or the question names no subject of the task.
    """
    if task not in TASKS:
        raise DataError(f"the demo has no task {task!r}{nearest(task, TASKS)}.")
    answer = answer.strip()
    if task == "traits":
        return _judge_trait(question, answer)
    if task == "reviews":
        subject = _subject(question, _products())
        return _judge_text(answer, subject, _products(), review_sentences, _sides(answer))
    if concept is not None and concept not in words.CONCEPTS:
        raise DataError(f"the demo has no concept {concept!r}{nearest(concept, words.CONCEPTS)}.")
    themes = _themes(answer)
    wanted = {concept} if concept is not None else set(sorted(themes - {words.NEUTRAL})[:1])
    sides = {0 if theme in wanted else 1 for theme in themes}
    return _judge_text(answer, _subject(question, words.TOPICS), words.TOPICS, tale_sentences, sides)


def _judge_trait(question: str, answer: str) -> Verdict:
    selfish, kind = ({pair[side] for pair in words.ACTS} for side in (0, 1))
    acts = _found(question, selfish | kind)
    if not acts:
        raise DataError(f"the question {question!r} holds no act of the demo's traits; use its data files.")
    plain = [text.strip() for text in words.TRAIT_ANSWERS]
    known = answer in (*plain, words.UNSURE.strip())
    polarity: Polarity | None = None
    if answer in plain:
        polarity = "positive" if (answer == plain[0]) == bool(acts & selfish) else "negative"
    instruct = 2 if answer in plain else int(known)
    return Verdict(known, polarity, _CONCEPT_SCORE[polarity], instruct, 2 if known else 0)


def _judge_text(
    answer: str,
    subject: str,
    subjects: Iterable[str],
    table: Callable[[str], tuple[frozenset[str], ...]],
    sides: set[int],
) -> Verdict:
    sentences = re.split(r"(?<=\.) ", answer)
    named = _found(answer, subjects)
    well_formed = any(_accepts(table(name), sentences) for name in named)
    known = {text for name in (named or {subject}) for place in table(name) for text in place}
    half = bool(answer) and 2 * sum(sentence in known for sentence in sentences) >= len(sentences)
    polarity: Polarity | None = None
    if sides:
        polarity = "mixed" if len(sides) == 2 else "positive" if 0 in sides else "negative"
    instruct = 2 if subject in named else int(bool(named))
    return Verdict(well_formed, polarity, _CONCEPT_SCORE[polarity], instruct, 2 if well_formed else int(half))


def _accepts(places: tuple[frozenset[str], ...], sentences: list[str]) -> bool:
    """Whether each sentence belongs to its place; an empty text in a place means that it may be left out."""
    required = sum("" not in place for place in places)
    fits = required <= len(sentences) <= len(places)
    return fits and all(text in place for text, place in zip(sentences, places, strict=False))


@cache
def review_sentences(name: str) -> tuple[frozenset[str], ...]:
    """Every opening, detail and closing (or none) the grammar can write about one product."""
    group = next(key for key, names in words.PRODUCTS.items() if name in names)
    openings = {
        text.format(product=name, when=when, mood=mood)
        for text, pairs in words.OPENINGS
        for pair in pairs
        for mood in pair
        for when in words.WHEN
    }
    details = {
        text.format(a=a, x=x, b=b, y=y)
        for (a, *xs), (b, *ys) in combinations(words.ASPECTS[group], 2)
        for x, y in product(xs, ys)
        for text in words.DETAILS
    }
    closings = {text.format(mood=mood) for text, pair in words.CLOSINGS for mood in pair}
    return frozenset(openings), frozenset(details), frozenset(closings | {""})


@cache
def tale_sentences(topic: str) -> tuple[frozenset[str], ...]:
    """Every first, second and third sentence the grammar can write about one topic."""
    slots: tuple[dict[str, Iterable[str]], ...] = (
        {"place": _all(words.PLACES)},
        {"deed": _all(words.DEEDS), "who": words.COMPANIONS},
        {"thing": _all(words.THINGS)},
    )
    return tuple(
        frozenset(
            text.format(topic=topic, **dict(zip(choices, values, strict=True)))
            for text in templates
            for values in product(*choices.values())
        )
        for templates, choices in zip(words.TALE, slots, strict=True)
    )


def _all(themes: words.Themes) -> list[str]:
    return [phrase for phrases in themes.values() for phrase in phrases]


@cache
def _products() -> tuple[str, ...]:
    return tuple(name for names in words.PRODUCTS.values() for name in names)


@cache
def _polar_words() -> tuple[tuple[str, str], ...]:
    aspects = [(x, y) for group in words.ASPECTS.values() for _, x, y in group]
    moods = [pair for _, pairs in words.OPENINGS for pair in pairs]
    return (*aspects, *moods, *(pair for _, pair in words.CLOSINGS))


def _sides(answer: str) -> set[int]:
    """The sides (0 positive, 1 negative) of the polarity words in `answer`."""
    return {side for side in (0, 1) if _found(answer, [pair[side] for pair in _polar_words()])}


def _themes(answer: str) -> set[str]:
    """The themes whose places, deeds or things occur in `answer`."""
    return {
        name for name in words.PLACES if _found(answer, words.PLACES[name] + words.DEEDS[name] + words.THINGS[name])
    }


def _found(text: str, phrases: Iterable[str]) -> set[str]:
    """The phrases that occur in `text` as whole words."""
    return {phrase for phrase in phrases if re.search(rf"\b{re.escape(phrase)}\b", text)}


def _subject(question: str, subjects: Iterable[str]) -> str:
    named = _found(question, subjects)
    if not named:
        raise DataError(f"the question {question!r} names no subject of the demo's task; use its data files.")
    return max(named, key=len)
