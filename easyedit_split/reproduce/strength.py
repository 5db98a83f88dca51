"""Which strengths a change is swept at, and which one the score table uses: never chosen on test pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis import curves, fit_preference, fit_utility, recommend_strength
from ..artifact import SteeringArtifact
from ..errors import FitError
from ..pairs import PreferencePair
from ..sweeps import SweepTable, sweep

REACH = 8.0
PROBE_PAIRS = 8
GRID_BUDGETS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
PROBES = tuple(2.0**k for k in range(-4, 10))


@dataclass(frozen=True)
class Choice:
    """The strength of the score table, and the rule that chose it, in words."""

    m: float
    rule: str


def sweep_factors(
    model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], artifact: SteeringArtifact, points: int
) -> NDArray[np.float64]:
    """Strengths to sweep: half of `points` on each side of 0, up to where mean utility has fallen by 8 nats.

    A change has its own scale, so each is swept over its own range: the powers of two from 1/16 to 512 are tried on a
    few held-out pairs, and the first past the limit ends that side.
    """
    probes = np.array([-m for m in reversed(PROBES)] + [0.0, *PROBES])
    table = sweep(model, tokenizer, list(pairs)[:PROBE_PAIRS], artifact, probes, "sum")
    utility = np.nanmean(table.utility(), axis=1)
    drop = utility[len(PROBES)] - utility
    positive, negative = drop[len(PROBES) + 1 :], drop[: len(PROBES)][::-1]
    half = points // 2
    reach = [next((m for m, d in zip(PROBES, side, strict=True) if d > REACH), PROBES[-1]) for side in
             (positive, negative)]  # fmt: skip
    return np.concatenate([np.linspace(-reach[1], 0, half, endpoint=False), np.linspace(0, reach[0], half + 1)])


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
    scores = [score(m) for m in tried]
    known = [s for s in scores if s is not None]
    if len(known) < len(scores):
        return choose(table, budget)
    best = [m for m, s in zip(tried, scores, strict=True) if s == max(known)]
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
            rule = f"recommended m for {budget:g} nats of utility on {n} held-out training pairs"
            choices.append(Choice(recommended.m, rule))
            continue
        within = np.where(drop <= budget, preference.mean, -np.inf)
        rule = f"best swept m within {budget:g} nats of utility on {n} held-out training pairs (no good fit)"
        choices.append(Choice(float(preference.m[int(np.argmax(within))]), rule))
    return choices


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{x:g}" for x in numbers)
