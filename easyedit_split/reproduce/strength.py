"""Which strength the score table uses: never chosen on test pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..analysis import curves, fit_preference, fit_utility, recommend_strength
from ..analysis.logodds import nats
from ..errors import FitError
from ..sweeps.table import SweepTable

GRID_BUDGETS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Choice:
    """The strength of the score table, and the rule that chose it, in words."""

    m: float
    rule: str


def choose(table: SweepTable, budget: float) -> Choice:
    """The strength for the score table, from a sweep of held-out training pairs.

    The recommended m of the fitted law for a loss of utility of `budget` nats; where the fits are not reliable, the
    swept m of highest measured preference within that budget.
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
    preference, utility = curves(table)
    try:
        laws = fit_preference(preference.m, preference.mean), fit_utility(utility.m, utility.mean)
        found = [recommend_strength(*laws, budget) for budget in budgets]
    except FitError:
        found = [None] * len(budgets)
    drop = np.interp(0.0, utility.m, utility.mean) - utility.mean
    choices = []
    for budget, recommended in zip(budgets, found, strict=True):
        if recommended and recommended.reliable and recommended.m is not None:
            rule = f"recommended m for {nats(budget)} of utility on {n} held-out training pairs"
            choices.append(Choice(recommended.m, rule))
            continue
        within = np.where(drop <= budget, preference.mean, -np.inf)
        rule = f"best swept m within {nats(budget)} of utility on {n} held-out training pairs (no good fit)"
        choices.append(Choice(float(preference.m[int(np.argmax(within))]), rule))
    return choices


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{x:g}" for x in numbers)
