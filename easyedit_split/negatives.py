"""The missing half of AxBench's pairs: the target model's own greedy answer to the same input, cached as it is made."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .artifact import describe_model
from .datasets import Prompted
from .errors import ArtifactError, DataError
from .pairs import PreferencePair

NUMBERS_A_TENSOR = 64


def model_fingerprint(model: Any) -> str:
    """Structure and weights of a model in 16 letters: its description, and some numbers of every parameter.

    Cheap on purpose: it tells models apart, it does not prove that two are equal.
    """
    digest = hashlib.sha256(describe_model(model)["fingerprint"].encode())
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        owner, _, own = name.rpartition(".")
        with _loaded(model.get_submodule(owner)) as module:
            flat = getattr(module, own).detach().flatten()
            step = max(1, flat.numel() // NUMBERS_A_TENSOR)
            digest.update(name.encode())
            digest.update(flat[::step][:NUMBERS_A_TENSOR].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _loaded(module: Any) -> Iterator[Any]:
    """The module, its own weights brought back meanwhile if they are offloaded."""
    if not any(p.is_meta for p in module.parameters(recurse=False)):
        yield module
        return
    from accelerate.utils import align_module_device

    with align_module_device(module, "cpu"):
        yield module


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
) -> list[str]:
    """The model's greedy answer to each question. Each batch is appended to `cache` (JSON Lines) when it is done.

    A run that was stopped goes on where it was. Answers of another model, length or system prompt are left alone.
    """
    from .generation import generate

    asked = f"{model_fingerprint(model)}|{max_new_tokens}|{system_prompt}"
    known = _cached(Path(cache))
    keys = {q: hashlib.sha256(f"{asked}|{q}".encode()).hexdigest() for q in questions}
    left = [q for q, key in keys.items() if key not in known]
    for start in tqdm(range(0, len(left), batch_size), "answers", unit="batch", disable=not (progress and left)):
        batch = left[start : start + batch_size]
        texts = generate(
            model, tokenizer, batch, max_new_tokens=max_new_tokens, batch_size=batch_size, system_prompt=system_prompt
        )
        fresh = [{"key": keys[q], "question": q, "answer": t} for q, t in zip(batch, texts, strict=True)]
        _append(Path(cache), fresh)
        known.update({row["key"]: row["answer"] for row in fresh})
    return [known[keys[q]] for q in questions]


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


def _cached(path: Path) -> dict[str, str]:
    """Answers on disk; a line cut short by a kill is ignored."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}): name another cache file") from None
    found = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            found[row["key"]] = str(row["answer"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _append(path: Path, rows: Sequence[dict[str, str]]) -> None:
    text = "\n" + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written ({error.strerror}): free space, or name another file") from None
