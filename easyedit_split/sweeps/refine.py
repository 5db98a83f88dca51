"""A sweep that goes on where its advice needs it: the strength to use is measured, not read off a curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.budget import Budget, PerToken
from ..analysis.pipeline import strength_past_the_end, strength_to_measure
from .run import sweep
from .table import SweepTable

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact
    from ..data.pairs import PreferencePair

ROUNDS = 8  # strengths added at most
FURTHEST = 4.0  # times as far as the sweep went, at most


def refine(
    model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], artifact: SteeringArtifact, table: SweepTable,
    max_utility_drop: Budget = 1.0, *, rounds: int = ROUNDS, chat: bool | None = None,
) -> SweepTable:  # fmt: skip
    """`table` with the strengths that its advice for the budget `max_utility_drop` stands on, at most `rounds` more.

    Its header says, as `refined`, with which strengths it set out.

    Each is swept on the same pairs: half as far again as the sweep went, where the best strength lies at its end, until
    preference or utility turns (to 4 times as far at most); then where the measured curves put the best strength within
    the budget, or half-way into a steep fall. If it turns out to cost more than that, the next one is nearer to 0.

    Args:
        pairs, artifact, chat: those of the sweep that made `table`.

    Raises:
        FitError, DataError: the table's losses or the budget cannot be used.
        ConfigError: see `sweep`; or other pairs than the table's.
    """
    from ..scoring.prefix_reuse import shared_prefixes

    table = replace(table, header=table.header | set_out(table.factors, max_utility_drop))
    furthest = FURTHEST * float(np.abs(table.factors).max())
    with shared_prefixes():
        for _ in range(rounds):
            m = strength_past_the_end(table, max_utility_drop)
            if m is None or abs(m) > furthest:
                m = strength_to_measure(table, max_utility_drop)
            if m is None:
                break
            table = table.joined(sweep(model, tokenizer, pairs, artifact, [m], table.reduction, chat=chat))
    return table


def set_out(factors: Iterable[float], max_utility_drop: Budget) -> dict[str, Any]:
    """What the header of a refined sweep says: the strengths it set out with, and for which budget it went on."""
    budget = str(max_utility_drop) if isinstance(max_utility_drop, PerToken) else max_utility_drop
    return {"refined": {"factors": [float(m) for m in factors], "max_utility_drop": budget}}
