"""The band of strengths at which texts hold: around 0, connected, every check passed at every swept strength in it.

The bounds are conventions, chosen for being simple and because the unsteered model's own texts keep them by definition;
docs/strength.md says how they were looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .reliability import Doubt
from .texts import Array, SweptTexts, TextMeasures

REPETITION = 0.2  # share of word triples above that of the unsteered model's own greedy answers
DIVERGENCE = 0.5  # nats a token: a token of what the unsteered model says is 1.6 times less likely, on average


@dataclass(frozen=True, eq=False)
class TextCheck:
    """One measure (M,) with the most that it may be. `unit`: what is said behind a number."""

    name: str
    values: Array
    bound: float
    unit: str = ""

    @property
    def holds(self) -> NDArray[np.bool_]:
        """(M,); False where the measure is not a number."""
        return np.asarray(self.values <= self.bound)

    def at(self, row: int) -> str:
        """What is said of a strength at which it fails."""
        return f"{self.name} {_number(self.values[row], self.bound)}{self.unit} (at most {self.bound:.3g})"


@dataclass(frozen=True)
class TextBand:
    """Strengths at which texts hold, swept ones: from `low` to `high`.

    `below`, `above`: the next swept strength, at which a check fails; None where the sweep, or the side that was looked
    at, ends. `failing`: what fails there, in words. `questions`: number of answers that stand behind it.
    """

    low: float
    high: float
    below: float | None
    above: float | None
    failing: str
    questions: int

    def __str__(self) -> str:
        """A sentence."""
        asked = f"{self.questions} question" + ("s" if self.questions > 1 else "")
        end = self.failing or "as far as the sweep goes"
        return f"Texts hold from m = {self.low:g} to m = {self.high:g}, measured on {asked}: {end}."


def text_checks(measures: TextMeasures) -> tuple[TextCheck, ...]:
    """The three checks, each beside the unsteered model's own texts."""
    own = max(measures.sampled_perplexity, measures.own_perplexity)
    return (
        TextCheck("perplexity", measures.perplexity, own),
        TextCheck("repetition", measures.repetition, measures.own_repetition + REPETITION),
        TextCheck("KL on unrelated prompts", measures.divergence, DIVERGENCE, " nats a token"),
    )


def texts_hold(measures: TextMeasures) -> NDArray[np.bool_]:
    """(M,) whether every check holds."""
    return np.all([check.holds for check in text_checks(measures)], axis=0)


def text_band(texts: SweptTexts | None, m: float) -> TextBand | None:
    """The band on the side of 0 that m is on, both sides for m = 0.

    None without measures, or where texts fail at the swept strength nearest 0 already.
    """
    if texts is None or texts.measures is None:
        return None
    side = np.flatnonzero(texts.m * np.sign(m) >= 0)
    at, hold = texts.m[side], texts_hold(texts.measures)[side]
    start = int(np.argmin(np.abs(at)))
    if not hold[start]:
        return None
    low = start - _run(hold[:start][::-1])
    high = start + _run(hold[start + 1 :])
    ends = [side[k] for k in (low - 1, high + 1) if 0 <= k < len(at)]
    failing = "; ".join(f"at m = {texts.m[row]:g} {_failing(texts.measures, row)}" for row in ends)
    below = float(at[low - 1]) if low else None
    above = float(at[high + 1]) if high + 1 < len(at) else None
    return TextBand(float(at[low]), float(at[high]), below, above, failing, len(texts.questions))


def doubts_of_texts(texts: SweptTexts | None, m: float) -> Iterator[Doubt]:
    """Whether texts fail at m, or at a swept strength between 0 and it."""
    if texts is None or texts.measures is None:
        return
    hold, row = texts_hold(texts.measures), texts.at(m)
    if row is None:
        yield Doubt("texts", f"No text was written at m = {m:.3g}.")
        return
    way = np.flatnonzero((texts.m * np.sign(m) >= 0) & (np.abs(texts.m) <= abs(m)) & ~hold)
    if not hold[row]:
        yield Doubt("texts", f"Texts fail at m = {m:.3g}: {_failing(texts.measures, row)}.")
    elif m != 0 and len(way):
        nearest = int(way[np.argmin(np.abs(texts.m[way]))])
        yield Doubt("texts", f"Texts fail on the way to m = {m:.3g}, at m = {texts.m[nearest]:.3g}: "
                             f"{_failing(texts.measures, nearest)}.")  # fmt: skip


def _failing(measures: TextMeasures, row: int) -> str:
    return ", ".join(check.at(row) for check in text_checks(measures) if not check.holds[row])


def _run(hold: NDArray[np.bool_]) -> int:
    """How many hold before the first that does not."""
    return len(hold) if hold.all() else int(np.argmin(hold))


def _number(value: float, bound: float) -> str:
    """A number in so few digits that it still differs from the bound."""
    for digits in range(3, 10):
        if f"{value:.{digits}g}" != f"{bound:.{digits}g}":
            break
    return f"{value:.{digits}g}"
