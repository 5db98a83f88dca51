"""Judging a cell's texts: which judge, what it is asked, and when an earlier verdict still stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..data.pairs import PreferencePair
from ..demo import TASKS
from ..errors import ConfigError
from ..evaluation.accuracy import generation_accuracy
from ..evaluation.judges import Estimate, Judge
from ..evaluation.judging import Judged, find_judge, items_of, judge_texts
from ..evaluation.rubrics import RUBRICS, SYSTEM
from .prepare import Prepared
from .settings import GridSettings, headline, metrics
from .strength import GRID_BUDGETS

LETTERS_A_TOKEN = 4


def judge_of(settings: GridSettings, dataset: str) -> Judge | None:
    """The judge of a data set. Raises `ConfigError`: see `find_judge`."""
    return find_judge(settings.judge, dataset, settings.output / "judge-replies.jsonl")


def judged_offline(settings: GridSettings, dataset: str) -> bool:
    """Whether the micro-world's grammar judges this data set: it needs no key and answers at once."""
    return dataset in TASKS and settings.judge in ("auto", "demo")


def rubrics_of(judge: Judge | None, dataset: str) -> list[str]:
    """The rubrics this data set is scored by and this judge offers."""
    return [name for name in metrics(dataset) if name in RUBRICS and judge is not None and judge.offers(name)]


def judged_hash(judge: Judge | None, dataset: str, texts: Sequence[str]) -> str:
    """What a verdict depends on: the judge, the wording of its rubrics, the texts."""
    asked = [[name, RUBRICS[name].task] for name in rubrics_of(judge, dataset)]
    parts = [judge.name if judge else None, SYSTEM, asked, list(texts)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def verdict_stands(settings: GridSettings, dataset: str, result: dict[str, Any]) -> bool:
    """Whether a result's verdict is of these texts and this judge, with nothing left to ask for."""
    kept = result.get("judge") or {}
    wanted = judged_hash(judge_of(settings, dataset), dataset, result.get("texts", []))
    return kept.get("inputs") == wanted and not kept.get("unreachable")


def verdict(settings: GridSettings, cell: Any, data: Prepared, result: dict[str, Any]) -> dict[str, Any]:
    """Scores of a cell's texts as `Judged` has them, with the judge's name and what they depend on."""
    if verdict_stands(settings, cell.dataset, result):
        return result["judge"]
    judge = judge_of(settings, cell.dataset)
    inputs = judged_hash(judge, cell.dataset, result["texts"])
    found = score_texts(settings, cell.dataset, data.test, result["texts"])
    return {"inputs": inputs, "name": judge.name if judge else None, **asdict(found)}


def score_texts(settings: GridSettings, dataset: str, pairs: Sequence[PreferencePair], texts: Sequence[str]) -> Judged:
    """What the data set's judge says of texts; nothing without one."""
    judge = judge_of(settings, dataset)
    names = rubrics_of(judge, dataset)
    return judge_texts(judge, names, pairs, texts) if judge and names else Judged({}, {}, {}, 0)


def headline_score(
    settings: GridSettings, dataset: str, pairs: Sequence[PreferencePair], texts: Sequence[str]
) -> float | None:
    """The data set's headline score of texts, by its judge or by the answers they give; None without a judge.

    Raises:
        ConfigError: the judge cannot be reached: a strength must not be chosen by the scores that happened to arrive.
    """
    if metrics(dataset) == ("accuracy",):
        return generation_accuracy(texts, pairs)[0]
    found = score_texts(settings, dataset, pairs, texts)
    if found.unreachable:
        raise ConfigError(f"the judge left {found.unreachable} requests unanswered: try again, or judge=none")
    return found.scores.get(headline(dataset))


def estimate(settings: GridSettings, dataset: str, data: Prepared) -> Estimate | None:
    """What judging one cell will cost if every text is as long as it may be; None without a judge."""
    judge = judge_of(settings, dataset)
    names = rubrics_of(judge, dataset)
    if judge is None or not names:
        return None
    asked = list(data.test) + (list(data.held_out) * len(GRID_BUDGETS) if settings.strength == "grid" else [])
    longest = [f"{i:06d}".ljust(LETTERS_A_TOKEN * settings.max_new_tokens, "x") for i in range(len(asked))]
    return judge.estimate(items_of(names, asked, longest))
