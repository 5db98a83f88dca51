"""What a judge says of texts: the mean of each rubric, the harmonic mean, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..pairs import PreferencePair
from .harmonic import mean_harmonic
from .judges import Judge, JudgeItem


@dataclass(frozen=True)
class Judged:
    """Mean scores and missing values by rubric, with `"harmonic mean"` where there are several rubrics.

    A mean is over what was scored, and None where nothing was. `reasons`: why scores are missing -> how many.
    `unreachable`: how many a later run can still get.
    """

    scores: dict[str, float | None]
    missing: dict[str, int]
    reasons: dict[str, int]
    unreachable: int


def items_of(rubrics: Sequence[str], pairs: Sequence[PreferencePair], texts: Sequence[str]) -> list[JudgeItem]:
    """One item a rubric and text, rubric by rubric."""
    return [JudgeItem(name, p.question, t, p.concept) for name in rubrics for p, t in zip(pairs, texts, strict=True)]


def judge_texts(judge: Judge, rubrics: Sequence[str], pairs: Sequence[PreferencePair], texts: Sequence[str]) -> Judged:
    """Have a judge score one text a pair under each rubric."""
    found, n = judge.score(items_of(rubrics, pairs, texts)), len(pairs)
    columns = {name: found.values[i * n : (i + 1) * n] for i, name in enumerate(rubrics)}
    known = {name: [v for v in column if v is not None] for name, column in columns.items()}
    scores = {name: sum(values) / len(values) if values else None for name, values in known.items()}
    missing = {name: n - len(values) for name, values in known.items()}
    if len(rubrics) > 1:
        scores["harmonic mean"], missing["harmonic mean"] = mean_harmonic(list(columns.values()))
    return Judged(scores, missing, dict(found.missing), found.unreachable)
