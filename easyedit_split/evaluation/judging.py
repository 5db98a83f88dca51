"""Finding a judge, and what it says of texts: the mean of each rubric, the harmonic mean, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.pairs import PreferencePair
from ..demo import TASKS
from ..errors import ConfigError
from .client import ApiJudge, JudgeSettings
from .demo import DemoJudge
from .harmonic import mean_harmonic
from .judges import Judge, JudgeItem
from .rubrics import AXBENCH_RUBRICS


@dataclass(frozen=True)
class Judged:
    """Mean scores and missing values by rubric, with `"harmonic mean"` where the rubrics are AxBench's three.

    A mean is over what was scored, and None where nothing was. `reasons`: why scores are missing -> how many.
    `unreachable`: how many a later run can still get.
    """

    scores: dict[str, float | None]
    missing: dict[str, int]
    reasons: dict[str, int]
    unreachable: int


def find_judge(choice: str, task: str, replies: Path) -> Judge | None:
    """The judge of a data set.

    Args:
        choice: `"demo"`, the micro-world's grammar, for one of its own `TASKS`; `"api"`, an endpoint whose key is in
            the environment; `"auto"`, the first of the two that there is; `"none"`.
        replies: where an endpoint's replies are kept.

    Raises:
        ConfigError: what was chosen is not to be had.
    """
    if choice == "none":
        return None
    if choice != "api" and task in TASKS:
        return DemoJudge(task)
    if choice == "demo":
        raise ConfigError(f"judge=demo knows {', '.join(TASKS)} but not {task!r}: use judge=auto")
    endpoint = JudgeSettings.from_environment()
    if endpoint is None and choice == "api":
        raise ConfigError("judge=api needs a key: set OPENAI_API_KEY (and OPENAI_BASE_URL for another endpoint)")
    return ApiJudge(endpoint, replies) if endpoint else None


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
    if set(rubrics) == set(AXBENCH_RUBRICS):
        scores["harmonic mean"], missing["harmonic mean"] = mean_harmonic(list(columns.values()))
    return Judged(scores, missing, dict(found.missing), found.unreachable)
