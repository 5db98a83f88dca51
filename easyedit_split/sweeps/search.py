"""A sweep that finds its own strengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..analysis.budget import Budget, PerToken
from ..analysis.pipeline import least_known_strength
from ..distributed import rank
from ..errors import ConfigError
from .factors import sweep_factors
from .refine import ROUNDS, refine
from .run import sweep
from .table import SweepTable

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact
    from ..data.pairs import PreferencePair

FIRST = 9  # strengths to begin with
LEAST = FIRST + ROUNDS


def search(
    model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], artifact: SteeringArtifact, strengths: int,
    reduction: str = "sum", max_utility_drop: Budget = 1.0, *, chat: bool | None = None, progress: bool = False,
) -> SweepTable:  # fmt: skip
    """Sweep `pairs` at `strengths` strengths that the curves themselves ask for; fewer where they are known before.

    Nine even ones to begin with, as far out as `sweep_factors` says; then, one at a time, the middle of the gap in
    which the curves are known least (`analysis.gaps`); the last ones, at most 8, as `refine` has them. The table's
    header says what was asked for. On simulated curves 25 know as much as 81 even ones from -20 to 20, and no less than
    as many passes over even ones in the same range (`benchmarks/strengths.py`).

    Raises:
        ConfigError: fewer than 17 strengths; see `sweep`.
        FitError, DataError: the losses or the budget cannot be used.
    """
    from tqdm import tqdm

    from ..scoring.prefix_reuse import shared_prefixes

    check_strengths(strengths)
    hidden = not progress or rank() > 0
    with shared_prefixes(), tqdm(total=strengths, desc="sweep", unit="strength", disable=hidden) as bar:
        first = sweep_factors(model, tokenizer, pairs, artifact, FIRST)
        table = sweep(model, tokenizer, pairs, artifact, first, reduction, chat=chat)
        bar.update(FIRST)
        while len(table.factors) < strengths - ROUNDS:
            m = least_known_strength(table, max_utility_drop)
            if m is None:
                break
            table = table.joined(sweep(model, tokenizer, pairs, artifact, [m], reduction, chat=chat))
            bar.update()
        rounds, known = strengths - len(table.factors), len(table.factors)
        table = refine(model, tokenizer, pairs, artifact, table, max_utility_drop, rounds=rounds, chat=chat)
        bar.update(len(table.factors) - known)
    return replace(table, header=table.header | searched(strengths, max_utility_drop))


def check_strengths(strengths: int) -> None:
    """Raise `ConfigError` unless a sweep can find so many strengths."""
    if strengths < LEAST:
        raise ConfigError(f"{strengths} strengths are too few to find where the curves bend: give {LEAST} or more")


def searched(strengths: int, max_utility_drop: Budget) -> dict[str, Any]:
    """What the header of such a sweep says."""
    budget = str(max_utility_drop) if isinstance(max_utility_drop, PerToken) else max_utility_drop
    return {"refined": {"strengths": strengths, "max_utility_drop": budget}}
