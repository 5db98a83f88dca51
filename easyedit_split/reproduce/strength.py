"""Which strength the score table uses: never chosen on test pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..analysis.logodds import nats
from ..analysis.pipeline import best_swept
from ..sweeps.table import SweepTable

GRID_BUDGETS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Choice:
    """The strength of the score table, and the rule that chose it, in words."""

    m: float
    rule: str


def budgets_of(strength: str, budget: float) -> tuple[float, ...]:
    """The budgets whose best strengths are asked for: `budget`, or with `strength="grid"` those of the grid."""
    return GRID_BUDGETS if strength == "grid" else (budget,)


def choose(table: SweepTable, budget: float) -> Choice:
    """The strength for the score table, from a sweep of held-out training pairs.

    The swept m of highest measured preference within a loss of utility of `budget` nats.
    """
    return _choices(table, (budget,))[0]


def choose_by_grid(table: SweepTable, score: Callable[[float], float | None], budget: float) -> Choice:
    """The strength whose texts for the held-out questions score best.

    The grid is what `choose` gives for each of `GRID_BUDGETS`, so that it is as fine as the change's own curve. Of
    several best the middle one is taken. Where nobody scores texts, it is `choose` with `budget`.

    Args:
        score: the mean score of the texts at a strength; None without a judge.
    """
    tried = sorted({choice.m for choice in _choices(table, GRID_BUDGETS)}, key=abs)
    scores = []
    for m in tried:
        found = score(m)
        if found is None:
            return choose(table, budget)
        scores.append(found)
    best = [m for m, s in zip(tried, scores, strict=True) if s == max(scores)]
    n = len(table.tokens_pos)
    rule = f"best score of texts for {n} held-out training questions, of the m for {_listed(GRID_BUDGETS)} nats"
    return Choice(best[len(best) // 2], rule)


def _choices(table: SweepTable, budgets: Sequence[float]) -> list[Choice]:
    n = len(table.tokens_pos)
    return [
        Choice(best_swept(table, b), f"best swept m within {nats(b)} of utility on {n} held-out training pairs")
        for b in budgets
    ]


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{x:g}" for x in numbers)
