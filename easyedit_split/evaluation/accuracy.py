"""Accuracy: how often the steered model takes the matching answer (App. A), by likelihood and by generation."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..data.pairs import PreferencePair
from ..errors import DataError

MOST_WORDS = 3


def likelihood_accuracy(loss_pos: ArrayLike, loss_neg: ArrayLike) -> float:
    """Share of pairs whose matching answer has the lower loss; a tie counts one half.

    Args:
        loss_pos, loss_neg: `(N,)` nats, both summed or both averaged over answer tokens.

    Raises:
        DataError: no pairs, shapes that differ, or a NaN.
    """
    pos, neg = np.asarray(loss_pos, float), np.asarray(loss_neg, float)
    if pos.shape != neg.shape or pos.ndim != 1 or not len(pos):
        raise DataError(f"losses of shape {pos.shape} and {neg.shape} cannot be compared: give (N,) and (N,), N >= 1")
    if np.isnan(pos).any() or np.isnan(neg).any():
        raise DataError("a loss is NaN: score the pairs again")
    return float(((pos < neg) + 0.5 * (pos == neg)).mean())


def starts_with_answer(text: str, answer: str) -> bool:
    """Whether `text` begins with `answer` as whole words; case and outer white space do not count."""
    wanted = re.escape(answer.strip())
    return re.match(rf"{wanted}(?!\w)", text.strip(), re.IGNORECASE) is not None


def has_fixed_answers(pairs: Sequence[PreferencePair]) -> bool:
    """Whether every answer is a word or three, as "Yes" or "(A)", so that a text can be expected to begin with it."""
    return all(len(answer.split()) <= MOST_WORDS for p in pairs for answer in (p.matching, p.not_matching))


def generation_accuracy(texts: Sequence[str], pairs: Sequence[PreferencePair]) -> tuple[float, float]:
    """Share of texts that begin with the pair's matching answer, and share that begin with either answer.

    A text that begins with neither counts as wrong; the second number says how many such texts there are.

    Raises:
        DataError: no texts, or not one a pair.
    """
    if len(texts) != len(pairs) or not pairs:
        raise DataError(f"{len(texts)} texts for {len(pairs)} pairs: give one text a pair, at least one")
    right = [starts_with_answer(t, p.matching) for t, p in zip(texts, pairs, strict=True)]
    other = [starts_with_answer(t, p.not_matching) for t, p in zip(texts, pairs, strict=True)]
    answered = [a or b for a, b in zip(right, other, strict=True)]
    return float(np.mean(right)), float(np.mean(answered))
