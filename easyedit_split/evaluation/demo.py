"""The micro-world's own judge behind the judges' interface: exact, offline, free."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..demo import TASKS, data_path
from ..demo import judge as grammar
from .judges import Estimate, JudgeItem, Scores
from .rubrics import AXBENCH_RUBRICS

ASIDE = 3  # questions a task


def questions_of_other_tasks(task: str) -> list[str]:
    """Questions of the micro-world that have nothing to do with a task: its model knows no other language."""
    others = [json.loads(line) for other in TASKS if other != task for line in _first_lines(other)]
    return [pair["question"] for pair in others]


def _first_lines(task: str) -> list[str]:
    return data_path(task, "test").read_text(encoding="utf-8").splitlines()[:ASIDE]


class DemoJudge:
    """Scores answers of one demo task (`reviews`, `traits`, `concepts`) by the grammar that made its sentences."""

    def __init__(self, task: str) -> None:
        self.task = task

    @property
    def name(self) -> str:
        return f"grammar of the micro-world ({self.task})"

    def offers(self, rubric: str) -> bool:
        return rubric in AXBENCH_RUBRICS

    def estimate(self, items: Sequence[JudgeItem]) -> Estimate:
        return Estimate(0, 0, 0, 0, 0.0)

    def score(self, items: Sequence[JudgeItem]) -> Scores:
        """Scores 0 to 2; missing for a rubric the grammar does not know.

        Raises:
            DataError: a question that is not of the task.
        """
        values = [self._one(item) for item in items]
        missing = sum(v is None for v in values)
        return Scores(tuple(values), {"not a rubric of the micro-world": missing} if missing else {})

    def _one(self, item: JudgeItem) -> float | None:
        if not self.offers(item.rubric):
            return None
        verdict = grammar.judge(self.task, item.question, item.answer, item.concept)
        return float(getattr(verdict, item.rubric))
