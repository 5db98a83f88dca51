"""A budget of utility: nats in the unit of the sweep, or nats for every token of an answer.

A sum over an answer of 30 tokens falls by more than one over 12 for the same harm to every token, so a budget in sums
means another thing for every set of pairs. Counted per token it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FitError
from .logodds import nats

PER_TOKEN = "/token"


@dataclass(frozen=True)
class PerToken:
    """So many nats for every token of an answer of mean length."""

    nats: float

    def __str__(self) -> str:
        return f"{self.nats:g}{PER_TOKEN}"


Budget = float | PerToken


def parse_budget(text: str) -> Budget:
    """`"0.5"`: nats in the sweep's unit; `"0.05/token"`: nats a token.

    Raises:
        ValueError: neither.
    """
    number = float(text.removesuffix(PER_TOKEN))
    return PerToken(number) if text.endswith(PER_TOKEN) else number


def check_budget(budget: Budget) -> None:
    """Raise FitError unless a budget is a finite number of nats, at least 0."""
    number = budget.nats if isinstance(budget, PerToken) else budget
    if not (np.isfinite(number) and number >= 0):
        raise FitError(f"max_utility_drop is {budget}; give a finite number of nats, at least 0.")


def answer_tokens(table: Any) -> float | None:
    """Mean number of tokens of an answer of a sweep, both answers of every pair counted alike; None where the table
    does not say."""
    counts = [getattr(table, name, None) for name in ("tokens_pos", "tokens_neg")]
    return None if any(count is None for count in counts) else float(np.mean(np.array(counts, dtype=float)))


def in_unit_of(table: Any, budget: Budget) -> float:
    """The budget in the unit of a sweep's losses. One a token is, for sums, that of the mean answer, to three digits;
    for token means it is itself.

    Raises:
        FitError: it cannot be used; or it is one a token, and the table does not say how long its answers are.
    """
    check_budget(budget)
    if not isinstance(budget, PerToken):
        return float(budget)
    if table.reduction == "mean":
        return budget.nats
    tokens = answer_tokens(table)
    if tokens is None:
        raise FitError(f"max_utility_drop is {budget}, but the sweep does not say how long its answers are: give nats.")
    return float(f"{budget.nats * tokens:.3g}")


def budget_said(table: Any, budget: Budget) -> str:
    """The budget both ways: in the unit of the sweep, and what that is a token or for a whole answer."""
    own, tokens = in_unit_of(table, budget), answer_tokens(table)
    if tokens is None:
        return nats(own)
    length = f"an answer has {tokens:.3g} tokens on average"
    if table.reduction == "mean":
        return f"{own:.3g} nats a token, {own * tokens:.3g} nats for a whole answer ({length})"
    a_token = budget.nats if isinstance(budget, PerToken) else own / tokens
    return f"{own:.3g} {'nat' if own == 1 else 'nats'} for a whole answer, {a_token:.3g} nats a token ({length})"
