"""What a page asks for, checked: rows of turns with their strengths, how to sample, a pair to score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError

MOST_ROWS, MOST_TOKENS = 16, 2048


@dataclass(frozen=True)
class Strengths:
    """`m1` scales `dW`, `m2` scales `db`; together they are one `m`."""

    m1: float
    m2: float


@dataclass(frozen=True)
class Row:
    """A conversation whose next turn is the model's, and one pair of strengths a change."""

    turns: tuple[Mapping[str, str], ...]
    strengths: tuple[Strengths, ...]


@dataclass(frozen=True)
class Asked:
    """Rows to answer in one batch, and how."""

    rows: tuple[Row, ...]
    max_new_tokens: int
    temperature: float
    seed: int


def asked(body: Any, changes: int) -> Asked:
    """Read a request for answers.

    Raises:
        ConfigError, DataError: something is missing, of the wrong kind or out of range.
    """
    rows = _get(body, "rows", list)
    if not 1 <= len(rows) <= MOST_ROWS:
        raise ConfigError(f"{len(rows)} rows are asked for: give 1 to {MOST_ROWS}")
    new = int(_number(body, "max_new_tokens"))
    if not 1 <= new <= MOST_TOKENS:
        raise ConfigError(f"max_new_tokens = {new} is out of range: give 1 to {MOST_TOKENS}")
    seed = _number(body, "seed")
    if seed != int(seed):
        raise ConfigError(f"seed = {seed:g} is no whole number: give one of 0 or more")
    return Asked(tuple(_row(row, changes) for row in rows), new, _number(body, "temperature"), int(seed))


def _row(row: Any, changes: int) -> Row:
    turns = tuple(_turn(turn) for turn in _get(row, "turns", list))
    if not turns or turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        raise DataError("there is no question: write one")
    strengths = _get(row, "strengths", list)
    if len(strengths) != changes:
        raise ConfigError(f"{len(strengths)} strengths for {changes} changes: give one a change")
    return Row(turns, tuple(Strengths(_number(s, "m1"), _number(s, "m2")) for s in strengths))


def _turn(turn: Any) -> Mapping[str, str]:
    role, content = _get(turn, "role", str), _get(turn, "content", str)
    if role not in ("user", "assistant"):
        raise DataError(f"a turn has the role {role!r}: it must be 'user' or 'assistant'")
    return {"role": role, "content": content}


def text(body: Any, name: str) -> str:
    """A text of a request."""
    return _get(body, name, str)


def chosen(body: Any, changes: Sequence[Any]) -> int:
    """The number of the change that a request names."""
    number = _number(body, "change")
    if number not in range(len(changes)):
        raise ConfigError(f"change {number:g} does not exist: there are {len(changes)}, counted from 0")
    return int(number)


def _number(body: Any, name: str) -> float:
    value = body.get(name) if isinstance(body, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}: give a finite number")
    return value


def _get(body: Any, name: str, kind: type) -> Any:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {value!r:.60}: it must be a {kind.__name__}")
    return value
