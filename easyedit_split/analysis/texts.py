"""Answers along a sweep: what the model wrote to a few questions at every swept strength."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TextMeasures:
    """What is known of the answers at every strength without reading them, (M,) each, beside the unsteered model's own.

    Attributes:
        perplexity: of the answers under the unsteered model, `exp` of the mean loss a token (nats), all tokens counted
            alike, the end of turn left out. Low where a text repeats itself, high also where it says well what the
            unsteered model would not say.
        sampled_perplexity: that of the unsteered model's answers to the same questions, sampled at temperature 1.
            own_perplexity: that of its greedy answers.
        repetition: mean share of an answer's word triples that stood in it before, 0 to 1; own_repetition: of the
            unsteered model's greedy answers. Words are split at spaces; an answer of two words has none.
        divergence: KL(unsteered || steered), nats a token, of the next-token distributions on the unsteered model's
            greedy answers to a few questions that have nothing to do with any concept.
        dose: `|m| |dh| / |h|` at the site: how large what is added is, beside what it is added to; no unit. Mean over
            the tokens of the unsteered answers. It says how strong the push is, not what it does.
    """

    perplexity: Array
    sampled_perplexity: float
    own_perplexity: float
    repetition: Array
    own_repetition: float
    divergence: Array
    dose: Array


@dataclass(frozen=True, eq=False)
class SweptTexts:
    """Greedy answers of one change.

    Attributes:
        m: (M,) strengths, ascending. questions: N of them. answers: M rows of N texts. max_new_tokens: where an answer
            was cut off. measures: of the answers; None where none were taken.
    """

    m: Array
    questions: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    max_new_tokens: int
    measures: TextMeasures | None = field(default=None, repr=False)

    def of(self, m: float) -> list[str]:
        """The answers at a strength; none where it has no texts."""
        row = self.at(m)
        return [] if row is None else list(self.answers[row])

    def at(self, m: float) -> int | None:
        """The row of a strength; None where it has no texts."""
        found = np.flatnonzero(np.isclose(self.m, m, rtol=1e-9, atol=1e-12))
        return int(found[0]) if len(found) else None
