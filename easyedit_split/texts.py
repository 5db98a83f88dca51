"""Texts of a sweep: a few greedy answers at every swept strength, kept beside the sweep that they belong to, with what
was measured of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .analysis.texts import SweptTexts, TextMeasures
from .errors import ArtifactError, ConfigError
from .folders import TEXTS, check_of_change, same_change
from .storage.files import write_text
from .sweeps.table import SweepTable, model_weights

if TYPE_CHECKING:
    from .changes.artifact import SteeringArtifact
    from .data.pairs import PreferencePair

MOST = 20  # questions; each costs an answer at every strength
ROWS = 32  # answers a batch
AGAIN = "run sweep again with --texts N and overwrite=true"


def texts_file(sweep: Path) -> Path:
    """Where the texts of a sweep lie: `texts.json` beside `sweep.parquet`, `texts-NAME.json` beside any other."""
    name = sweep.stem.removeprefix("sweep").lstrip("-")
    return sweep.with_name(f"texts-{name}.json" if name else TEXTS)


def check_number(n: int) -> None:
    """Raise `ConfigError` unless so many questions can be asked."""
    if not 0 <= n <= MOST:
        raise ConfigError(f"{n} texts a strength: give 0 to {MOST}, since each is written at every strength")


def write_texts(
    model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], artifact: SteeringArtifact, table: SweepTable, n: int,
    *, max_new_tokens: int = 64, progress: bool = False,
) -> SweptTexts:  # fmt: skip
    """Greedy answers to the first `n` questions of `pairs` at every strength of `table`, put as the sweep put them.

    An answer costs about `max_new_tokens` steps of the model, and there are `n` times as many as strengths; several
    strengths share a batch, one a row.

    Args:
        pairs, artifact: those of the sweep that made `table`.

    Raises:
        ConfigError: a number out of range. DataError: see `generate`.
    """
    import torch
    from tqdm import tqdm

    from .generation import generate

    check_number(n)
    questions = [pair.question for pair in pairs[:n]]
    strengths = np.sort(table.factors)
    cells = [(m, question) for question in questions for m in strengths.tolist()]
    found: list[str] = []
    with (
        artifact.attach(model, 0.0) as handle,
        tqdm(total=len(cells), desc="texts", unit="answer", disable=not progress) as bar,
    ):
        for start in range(0, len(cells), ROWS):
            batch = cells[start : start + ROWS]
            handle.set_strength(torch.tensor([m for m, _ in batch], dtype=torch.float32))
            found += generate(
                model, tokenizer, [question for _, question in batch], max_new_tokens=max_new_tokens, batch_size=ROWS,
                **prompting(table),
            )  # fmt: skip
            bar.update(len(batch))
    by_question = [found[k * len(strengths) : (k + 1) * len(strengths)] for k in range(len(questions))]
    answers = tuple(zip(*by_question, strict=True))
    return SweptTexts(strengths, tuple(questions), answers, max_new_tokens)


def prompting(table: SweepTable) -> dict[str, Any]:
    """How a sweep put its questions, as `generate` and `Encoder` take it."""
    header = table.header
    return {"chat": bool(header.get("chat", True)), "system_prompt": str(header.get("system_prompt", ""))}


def save_texts(sweep: Path, texts: SweptTexts, table: SweepTable) -> Path:
    """Write the texts of a sweep beside it; the file names the change, the sweep's settings and the model's weights."""
    held = {
        **_made_from(table), "max_new_tokens": texts.max_new_tokens, "questions": texts.questions,
        "m": texts.m.tolist(), "answers": texts.answers,
        **({} if texts.measures is None else {"measures": _plain(texts.measures)}),
    }  # fmt: skip
    return write_text(texts_file(sweep), json.dumps({**held, "sha256": _checksum(held)}, ensure_ascii=False) + "\n")


def load_texts(sweep: Path, table: SweepTable) -> SweptTexts | None:
    """The texts that lie beside a sweep; None where there are none.

    Raises:
        ArtifactError: broken, or of another change, other settings or another model than the sweep.
    """
    path = texts_file(sweep)
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held.pop("sha256") != _checksum(held):
            raise ValueError("its content is not what was written: the checksum differs")
        source, settings, weights = held["artifact"], held["sweep"], held["weights"]
        answers = tuple(tuple(map(str, row)) for row in held["answers"])
        m, questions = np.array(held["m"], dtype=float), tuple(map(str, held["questions"]))
        if m.ndim != 1 or len(answers) != len(m) or any(len(row) != len(questions) for row in answers):
            raise ValueError("its answers are not one a question and strength")
        measures = _measures(held["measures"], len(m)) if "measures" in held else None
        texts = SweptTexts(m, questions, answers, int(held["max_new_tokens"]), measures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is broken ({error}): {AGAIN}") from None
    if isinstance(source, dict):
        check_of_change(path, source, path.parent, AGAIN)
    mine = _made_from(table)
    if not same_change(source or {}, mine["artifact"] or {}):
        raise ArtifactError(f"{path} is of another change than {sweep.name} beside it: {AGAIN}")
    if (settings, weights) != (mine["sweep"], mine["weights"]) or m.tolist() != sorted(table.factors.tolist()):
        raise ArtifactError(f"{path} is of other settings than {sweep.name} beside it: {AGAIN}")
    return texts


def _plain(measures: TextMeasures) -> dict[str, Any]:
    """As JSON holds it; what is not finite is None."""
    return {name: _numbers(value) for name, value in vars(measures).items()}


def _numbers(value: Any) -> Any:
    if np.ndim(value):
        return [_numbers(one) for one in value]
    return float(value) if np.isfinite(value) else None


def _measures(held: dict[str, Any], n: int) -> TextMeasures:
    found: dict[str, Any] = {}
    for one in fields(TextMeasures):
        value = np.array(held[one.name], dtype=float)
        if value.shape not in ((), (n,)) or (value.ndim == 0) != (one.type == "float"):
            raise ValueError(f"its measure {one.name} is not one a strength")
        found[one.name] = value if value.ndim else float(value)
    return TextMeasures(**found)


def drop_others(sweep: Path, table: SweepTable) -> None:
    """Take away what lies where the texts of a sweep would, if it is not of this one."""
    try:
        load_texts(sweep, table)
    except ArtifactError:
        texts_file(sweep).unlink(missing_ok=True)


def _made_from(table: SweepTable) -> dict[str, Any]:
    weights = model_weights(table.header)
    return {"artifact": table.header.get("artifact"), "sweep": table.settings_id, "weights": weights}


def _checksum(held: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
