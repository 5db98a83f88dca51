"""How many strengths a sweep needs: even ones beside those that a sweep finds for itself.

    python benchmarks/strengths.py [--curves 100] [--pairs 40] [--seed 0]

Curves of known truth as in `advice.py`, half of the law, half with a step or with bumps; nobody knows their reach
beforehand. Contenders: even strengths from -20 to 20 (the default of `sweep`); even ones as far out as `sweep_factors`
goes; `search` (`sweep --strengths N`). All then measure the strength that their advice asks for (`--refine`). Passes
are strengths scored on all pairs, the probing of the range included. The error is against the dense truth of the same
pairs: the gain in preference that the advised strength misses, and by how much the curves through the points miss
where they cost at most twice the budget.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from advice import Pairs, not_of_law, of_curves, of_law

from easyedit_split.analysis.logodds import curves, pref_log_odds, util_log_odds
from easyedit_split.analysis.measured import cubic
from easyedit_split.analysis.pipeline import (
    best_swept,
    least_known_strength,
    strength_past_the_end,
    strength_to_measure,
)
from easyedit_split.sweeps.factors import PROBE_PAIRS, PROBES, end_of_side
from easyedit_split.sweeps.refine import FURTHEST, ROUNDS
from easyedit_split.sweeps.search import FIRST

BUDGET = 1.0
EVEN, FOUND, SEARCH = (21, 41, 81), (13, 21, 29), (17, 21, 25, 29)


def found_range(pairs: Pairs, points: int) -> tuple[np.ndarray, float]:
    """Even strengths as `sweep_factors` places them, and the passes that the probing took."""
    asked = 0

    def losses(m: float) -> np.ndarray:
        nonlocal asked
        asked += PROBE_PAIRS
        return np.array(pairs.losses(np.array([m])))[:, 0, :PROBE_PAIRS]

    low, high = (end_of_side(losses, sign) for sign in (-1.0, 1.0))
    negative = (points - 1) // 2
    grid = [np.linspace(low, 0, negative, endpoint=False), np.linspace(0, high, points - negative)]
    return np.concatenate(grid), asked / pairs.n


def ascending(table: SimpleNamespace) -> SimpleNamespace:
    order = np.argsort(table.factors)
    sorted_ = {name: getattr(table, name)[order] for name in ("factors", "loss_pos", "loss_neg")}
    return SimpleNamespace(**{**vars(table), **sorted_})


def refined(pairs: Pairs, table: SimpleNamespace, rounds: int = ROUNDS) -> SimpleNamespace:
    """As `sweeps.refine`, without a model."""
    furthest = FURTHEST * np.abs(table.factors).max()
    for _ in range(rounds):
        m = strength_past_the_end(table, BUDGET)
        if m is None or abs(m) > furthest:
            m = strength_to_measure(table, BUDGET)
        if m is None:
            break
        table = ascending(pairs.with_strength(table, m))
    return table


def even(pairs: Pairs, points: int) -> tuple[SimpleNamespace, float]:
    return refined(pairs, pairs.table(np.linspace(-20, 20, points))), 0.0


def in_found_range(pairs: Pairs, points: int) -> tuple[SimpleNamespace, float]:
    grid, passes = found_range(pairs, points)
    return refined(pairs, pairs.table(grid)), passes


def searched(pairs: Pairs, points: int) -> tuple[SimpleNamespace, float]:
    """As `sweeps.search`, without a model."""
    grid, passes = found_range(pairs, FIRST)
    table = pairs.table(grid)
    while len(table.factors) < points - ROUNDS and (m := least_known_strength(table, BUDGET)) is not None:
        table = ascending(pairs.with_strength(table, m))
    return refined(pairs, table, points - len(table.factors)), passes


class Truth:
    """The dense curves of the pairs that are swept."""

    def __init__(self, pairs: Pairs, reach: float):
        self.m = np.union1d(np.linspace(-1.5 * reach, 1.5 * reach, 2001), [0.0, *PROBES[:4]])
        losses = pairs.losses(self.m)
        self.preference, self.utility = pref_log_odds(*losses).mean(axis=1), util_log_odds(*losses).mean(axis=1)
        zero = int(np.searchsorted(self.m, 0.0))
        right = np.maximum.accumulate(self.utility[zero:])
        left = np.maximum.accumulate(self.utility[zero::-1])[::-1]
        self.spent = np.concatenate([left[:-1], right]) - self.utility
        self.best = float(self.preference[self.spent <= BUDGET].max())

    def errors(self, table: SimpleNamespace) -> tuple[float, float]:
        missed = self.best - float(np.interp(best_swept(table, BUDGET), self.m, self.preference))
        at = self.m[(self.spent <= 2 * BUDGET) & (self.m >= table.factors[0]) & (self.m <= table.factors[-1])]
        squares = [
            np.mean((cubic(curve.m, curve.mean, at) - np.interp(at, self.m, true)) ** 2)
            for curve, true in zip(curves(table), (self.preference, self.utility), strict=True)
        ]
        return max(missed, 0.0), float(np.sqrt(np.mean(squares)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ways: list[tuple[str, Any, int]] = [
        *(("even, -20 to 20", even, n) for n in EVEN), *(("even, range found", in_found_range, n) for n in FOUND),
        *(("search", searched, n) for n in SEARCH),
    ]  # fmt: skip
    rows: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    begin = time.process_time()
    for number in range(args.curves):
        rng = np.random.default_rng([args.seed, number])
        kind, reach = ("law", "law", "steps", "bumps")[number % 4], float(rng.choice([1.0, 6.0, 20.0]))
        both = of_law(rng, reach) if kind == "law" else not_of_law(rng, reach, kind)
        pairs = of_curves(rng, *both, reach, args.pairs)
        truth = Truth(pairs, reach)
        for name, way, points in ways:
            table, probing = way(pairs, points)
            rows.setdefault((name, points), []).append((len(table.factors) + probing, *truth.errors(table)))
    print(
        "| strengths | asked for | passes | gain missed, nats: mean | median | 90% | curves miss, nats: median | 90% |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for (name, points), found in rows.items():
        passes, missed, curve = np.array(found).T
        cells = [passes.mean(), missed.mean(), *np.quantile(missed, [0.5, 0.9]), *np.quantile(curve, [0.5, 0.9])]
        print(f"| {name} | {points} | {cells[0]:.1f} | " + " | ".join(f"{c:.2f}" for c in cells[1:]) + " |")
    print(f"\n{args.curves} curves, {args.pairs} pairs, processor time {time.process_time() - begin:.0f} s")


if __name__ == "__main__":
    main()
