"""Utility that shows without a judge: length, variety and repetition of generated text. Words are split at spaces."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DataError


def distinct_n(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams of words over all n-grams, of all texts together; None if no text has n words."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(text: str, n: int = 3) -> float:
    """Share of a text's n-grams of words that stood in it before: 0 without repetition; 0 with fewer than n words."""
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def text_measures(texts: Sequence[str]) -> dict[str, float | None]:
    """Mean length in words, share of empty texts, distinct-1, distinct-2, mean repetition of word triples.

    Raises:
        DataError: no texts.
    """
    if not texts:
        raise DataError("there are no texts to measure: give at least one")
    return {
        "length": sum(len(t.split()) for t in texts) / len(texts),
        "empty": sum(not t.strip() for t in texts) / len(texts),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "repetition": sum(repetition(t) for t in texts) / len(texts),
    }


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
