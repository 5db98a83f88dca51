"""Data of the tiny tasks beside this file, made of the demo's test sets; no download."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

import easyedit_split as es
from easyedit_split.demo import data_path


def reviews(**_: Any) -> dict[str, Dataset]:
    """Which of two reviews is likelier: the happy one is the first choice."""
    pairs = es.flat_pairs(es.load_pairs(data_path("reviews", "test")))
    return _test([{"question": p.question, "choices": [p.matching, p.not_matching]} for p in pairs])


def topic(**_: Any) -> dict[str, Dataset]:
    """Which of two stories is likelier: the first choice is on the topic asked for, the other on the next one's."""
    told = _stories()
    return _test(
        [
            {"question": one.question, "choices": [one.not_matching, other.not_matching]}
            for one, other in zip(told, told[1:] + told[:1], strict=True)
            if one.question != other.question
        ]
    )


def stories(**_: Any) -> dict[str, Dataset]:
    """Stories that have nothing to do with reviews, to be predicted word by word."""
    return _test([{"text": story.not_matching} for story in _stories()])


def _stories() -> list[es.PreferencePair]:
    """The demo's stories: in `not_matching` without any of the four concepts."""
    return [pair for pairs in es.load_pairs(data_path("concepts", "test")).values() for pair in pairs]


def _test(rows: list[dict[str, Any]]) -> dict[str, Dataset]:
    return {"test": Dataset.from_list(rows)}
