"""Answers along a sweep: what the model wrote to a few questions at every swept strength."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SweptTexts:
    """Greedy answers of one change.

    Attributes:
        m: (M,) strengths, ascending. questions: N of them. answers: M rows of N texts. max_new_tokens: where an answer
            was cut off.
    """

    m: NDArray[np.float64]
    questions: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    max_new_tokens: int

    def of(self, m: float) -> list[str]:
        """The answers at a strength; none where it has no texts."""
        row = self.at(m)
        return [] if row is None else list(self.answers[row])

    def at(self, m: float) -> int | None:
        """The row of a strength; None where it has no texts."""
        found = np.flatnonzero(np.isclose(self.m, m, rtol=1e-9, atol=1e-12))
        return int(found[0]) if len(found) else None
