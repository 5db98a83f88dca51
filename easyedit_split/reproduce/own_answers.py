"""The missing half of AxBench's pairs: the target model's own greedy answer to the same input, cached as it is made."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..data.pairs import PreferencePair
from ..data.paper_sets import Prompted
from ..errors import DataError
from ..models.identity import model_fingerprint
from ..storage.reply_cache import ReplyCache, request_key


def model_answers(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    cache: str | Path,
    *,
    max_new_tokens: int = 128,
    batch_size: int = 16,
    system_prompt: str = "",
    progress: bool = False,
    otherwise: str | None = None,
) -> list[str]:
    """The model's greedy answer to each question. Each batch is written to `cache` (JSON Lines) when it is done.

    A run that was stopped goes on where it was. Answers of another model, length or system prompt are left alone.

    Args:
        otherwise: the model is not asked; this stands for the answers that are not in `cache`.
    """
    from ..generation import generate

    known = ReplyCache(cache)
    shared = {
        "model": model_fingerprint(model), "max_new_tokens": max_new_tokens, "system_prompt": system_prompt
    }  # fmt: skip
    keys = {q: request_key({**shared, "question": q}) for q in questions}
    if otherwise is not None:
        return [known.get(keys[q]) or otherwise for q in questions]
    left = [q for q, key in keys.items() if known.get(key) is None]
    for start in tqdm(range(0, len(left), batch_size), "answers", unit="batch", disable=not (progress and left)):
        batch = left[start : start + batch_size]
        texts = generate(
            model, tokenizer, batch, max_new_tokens=max_new_tokens, batch_size=batch_size, system_prompt=system_prompt
        )
        for question, text in zip(batch, texts, strict=True):
            known.put(keys[question], text)
    return [known.get(keys[q]) or "" for q in questions]


def with_model_answers(rows: Sequence[Prompted], answers: Sequence[str]) -> list[PreferencePair]:
    """Pairs of the rows and the model's answers. Rows whose answer is empty or the matching one are left out, loudly.

    Raises:
        DataError: no row is left.
    """
    pairs = []
    for row, answer in zip(rows, answers, strict=True):
        if answer.strip() and answer.strip() != row.matching.strip():
            pairs.append(PreferencePair(row.question, row.matching, answer, row.concept, row.concept_id))
    dropped = len(rows) - len(pairs)
    if not pairs:
        raise DataError(f"none of the {len(rows)} answers of the model can be used: they are empty or match already")
    if dropped:
        warnings.warn(f"{dropped} of {len(rows)} rows left out: the model's answer is empty or matches", stacklevel=2)
    return pairs
