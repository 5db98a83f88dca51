"""Which strengths a change is swept at, and which one the score table uses: never chosen on test pairs."""

from __future__ import annotations

from collections.abc import Sequence
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
    n = len(table.tokens_pos)
    preference, utility = curves(table)
    try:
        found = recommend_strength(
            fit_preference(preference.m, preference.mean), fit_utility(utility.m, utility.mean), budget
        )
        if found.reliable and found.m is not None:
            return Choice(found.m, f"recommended m for {budget:g} nats of utility on {n} held-out training pairs")
    except FitError:
        pass
    drop = np.interp(0.0, utility.m, utility.mean) - utility.mean
    within = np.where(drop <= budget, preference.mean, -np.inf)
    best = float(preference.m[int(np.argmax(within))])
    return Choice(best, f"best swept m within {budget:g} nats of utility on {n} held-out training pairs (no good fit)")
