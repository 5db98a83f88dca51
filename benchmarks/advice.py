"""How often advice is wrong, on curves whose truth is known.

    python benchmarks/advice.py [--curves 2000] [--sweeps FOLDER] [--seed 0]

Half of the curves are drawn from the law, half are not of the law: steps, bumps, and real curves (pairs drawn from
dense sweeps of the demo model's three forms, kept in FOLDER, made there when missing). Every curve is swept at 13, 25
or 41 strengths with 20 to 200 pairs (real ones: 20 to 60 of 100, the others are the fresh ones), each pair with its own
size, stretch and roughness. Advice is then asked for in four ways and held against fresh pairs of the same curve:

- law: the fitted law, bent through the points, as `recommend_strength` gives it;
- between: the cubic through the points, at a strength that was not measured;
- swept: what `analyse` advises of the sweep as it is;
- measured: what it advises once the strengths that it asks for were measured too (with a model, `sweeps.refine`).

overspent: how often fresh pairs lose more than the budget and half a nat, of the reliable advice and of all. best m
held: how often the interval holds the strength that is best for fresh pairs. refused: how often the advice is not
called reliable.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from easyedit_split import SweepTable, analysis
from easyedit_split.analysis import fitted_curves
from easyedit_split.analysis.logodds import pref_log_odds, util_log_odds
from easyedit_split.analysis.pipeline import strength_to_measure
from easyedit_split.errors import FitError

BUDGETS = (0.5, 1.0, 2.0)
BEYOND = 0.5
FRESH, DENSE = 400, 401
WAYS = ("law", "between", "swept", "measured")
Array = Any


@dataclass(frozen=True)
class Pairs:
    """Pairs of one curve: losses of both answers at strengths (M,), each (M, N)."""

    losses: Callable[[Array], tuple[Array, Array]]
    n: int

    def table(self, m: Array) -> SimpleNamespace:
        pos, neg = self.losses(np.asarray(m, float))
        return SimpleNamespace(factors=np.asarray(m, float), loss_pos=pos, loss_neg=neg, reduction="sum", header={})

    def with_strength(self, table: SimpleNamespace, m: float) -> SimpleNamespace:
        more = self.table([m])
        joined = {k: np.concatenate([getattr(table, k), getattr(more, k)]) for k in ("factors", "loss_pos", "loss_neg")}
        return SimpleNamespace(**{**vars(table), **joined})


def of_curves(rng: np.random.Generator, preference: Callable[[Array], Array], utility: Callable[[Array], Array],
              reach: float, n: int) -> Pairs:  # fmt: skip
    """Pairs that follow two curves, each in its own size and stretch of m, with roughness over m."""
    stretch, size = np.exp(0.1 * rng.normal(size=n)), np.exp(0.25 * rng.normal(size=n))
    offset = rng.normal(size=(2, n)) * [[4.0], [2.0]]
    rough = 0.4 * np.abs(rng.normal(size=(2, 3, n)))
    wave, phase = rng.uniform(1, 12, size=(2, 3, n)) / reach, rng.uniform(0, 2 * np.pi, size=(2, 3, n))

    def losses(m: Array) -> tuple[Array, Array]:
        at = m[:, None] * stretch
        curves = [f(at.ravel()).reshape(at.shape) * size + offset[i] for i, f in enumerate((preference, utility))]
        for i in range(2):
            bent = rough[i] * (np.sin(m[:, None, None] * wave[i] * 2 * np.pi + phase[i]) - np.sin(phase[i]))
            curves[i] = curves[i] + bent.sum(axis=1)
        curves[1] = np.minimum(curves[1], 15.0)  # above, 1 - P has no digits left in a loss of float64
        log_p = -np.logaddexp(0.0, -curves[1])
        return np.logaddexp(0.0, -curves[0]) - log_p, np.logaddexp(0.0, curves[0]) - log_p

    return Pairs(losses, n)


def of_law(rng: np.random.Generator, reach: float) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """A preference and a utility curve of the law, in the sizes of sums over tokens."""

    def shape() -> Array:
        while True:
            scales = reach**2 * np.exp(rng.uniform(np.log(0.01), np.log(2.0), 2))
            powers = np.exp(rng.uniform(np.log(0.3), np.log(3.0), 2))
            plus = rng.uniform(0.0, 0.3 * reach) * (rng.random() < 0.7)
            minus = -np.sqrt(scales[1] * np.expm1(powers[0] * np.log1p(plus**2 / scales[0]) / powers[1]))
            if minus > -0.5 * reach:
                return np.array([plus, scales[0], powers[0], minus, scales[1], powers[1]])

    sign, first, second = rng.choice([1, 1, 1, -1]), shape(), shape()
    pref = np.array([sign * rng.uniform(3, 40) / reach, rng.uniform(-10, 10), 0.0, *first])
    depth = np.exp(rng.uniform(np.log(3), np.log(100)))
    util = np.array([depth, -depth - rng.uniform(8, 30), *second])  # below 0: an answer is one of very many
    return (lambda m: fitted_curves.curve("preference", m, pref)), (lambda m: fitted_curves.curve("utility", m, util))


def not_of_law(rng: np.random.Generator, reach: float, kind: str) -> tuple[Callable[[Array], Array], ...]:
    """Curves of the law with a step, or with bumps and dips, of 0.5 to 8 nats."""
    preference, utility = of_law(rng, reach)
    height = np.exp(rng.uniform(np.log(0.5), np.log(8.0), 3)) * rng.choice([-1, 1], 3)
    if kind == "steps":
        at, width = rng.uniform(0.02, 0.8) * reach * rng.choice([-1, 1]), rng.uniform(0.002, 0.05) * reach
        drop = abs(height[0])

        def stepped(m: Array) -> Array:
            return utility(m) - drop / (1 + np.exp(np.clip(-(m - at) * np.sign(at) / width, -500, 500)))

        return preference, stepped
    centre, width = rng.uniform(-0.8, 0.8, 3) * reach, np.exp(rng.uniform(np.log(0.02), np.log(0.3), 3)) * reach

    def bumped(m: Array) -> Array:
        bumps = height[:, None] * np.exp(-(((m - centre[:, None]) / width[:, None]) ** 2))
        return utility(m) + bumps.sum(axis=0)

    return preference, bumped


def of_sweep(table: SweepTable, rows: Array) -> Pairs:
    """Pairs of a dense sweep; losses joined by straight lines."""

    def losses(m: Array) -> tuple[Array, Array]:
        at = np.clip(np.searchsorted(table.factors, m), 1, len(table.factors) - 1)
        low, high = table.factors[at - 1], table.factors[at]
        share = ((m - low) / (high - low))[:, None]
        both = [loss[:, rows] for loss in (table.loss_pos, table.loss_neg)]
        return tuple(loss[at - 1] * (1 - share) + loss[at] * share for loss in both)  # type: ignore[return-value]

    return Pairs(losses, len(rows))


class Truth:
    """Fresh pairs of a curve: their loss at a strength, counted as the advice counts it, and their best strength."""

    def __init__(self, fresh: Pairs, reach: float):
        self.fresh, self.m = fresh, np.union1d(np.linspace(-reach, reach, DENSE), [0.0])
        self.preference, self.utility = self._means(self.m)

    def _means(self, m: Array) -> tuple[Array, Array]:
        losses = self.fresh.losses(np.asarray(m, float))
        return pref_log_odds(*losses).mean(axis=1), util_log_odds(*losses).mean(axis=1)

    def _base(self, swept: Array) -> tuple[Array, Array]:
        """Strengths from which the loss is counted, by size, and the utility of fresh pairs there."""
        return swept, self._means(swept)[1]

    def ask(self, at: float, swept: Array, budget: float) -> tuple[float, float]:
        """The loss of fresh pairs at ``at``, and their best strength; losses from 0 or a swept strength on the way."""
        swept, utility = self._base(swept)
        loss = float(self._highest(np.array([at]), swept, utility)[0] - self._means([at])[1][0])
        within = self._highest(self.m, swept, utility) - self.utility <= budget
        return loss, float(self.m[int(np.where(within, self.preference, -np.inf).argmax())])

    @staticmethod
    def _highest(m: Array, swept: Array, utility: Array) -> Array:
        on_the_way = (swept * np.sign(m)[:, None] >= 0) & (np.abs(swept) <= np.abs(m)[:, None]) | (swept == 0)
        return np.where(on_the_way, utility, -np.inf).max(axis=1)


@dataclass
class Tally:
    advised: int = 0
    reliable: int = 0
    overspent: int = 0
    overspent_any: int = 0
    held: int = 0
    held_reliable: int = 0
    used: float = 0.0


Answer = tuple[float | None, tuple[float, float] | None, bool, Array]  # strength, interval, reliable, counted from


def ask(pairs: Pairs, table: SimpleNamespace, budget: float, seed: int) -> dict[str, Answer]:
    """The advice of each way."""
    found = analysis.analyse(table, budget, n_boot=500, seed=seed)
    best = found.recommendation
    if best is None or best.m is None:
        return {}
    law = analysis.recommend_strength(found.preference_fit, found.utility_fit, budget)
    plain = all(fit.success and fit.r2 >= 0.9 for fit in (found.preference_fit, found.utility_fit))
    points = found.measured
    value = np.where(points.spent_dense <= budget, points.gain_dense, -np.inf)
    between, swept = float(points.dense[int(value.argmax())]), table.factors
    answers: dict[str, Answer] = {
        "law": (law.m, None, plain, np.zeros(1)), "between": (between, None, plain, swept),
        "swept": (best.m, best.interval, best.reliable, swept),
    }  # fmt: skip
    rounds = 0
    while rounds < 8 and (m := strength_to_measure(table, budget)) is not None:
        table, rounds = pairs.with_strength(table, m), rounds + 1
    if rounds:
        best = analysis.analyse(table, budget, n_boot=500, seed=seed).recommendation
    if best is not None and best.m is not None:
        answers["measured"] = (best.m, best.interval, best.reliable, table.factors)
    return answers


def dense_sweeps(folder: Path) -> list[SweepTable]:
    """Dense sweeps of the demo model's three forms on reviews and traits; made where they are missing."""
    import easyedit_split as es
    from easyedit_split.demo import data_path
    from easyedit_split.settings.files import load_hparams
    from easyedit_split.settings.shipped import hparams_path
    from easyedit_split.training.from_settings import train_from

    found = []
    for task in ("reviews", "traits"):
        for form in ("vector", "lora", "local_weight"):
            path = folder / f"demo_{task}_{form}_42.parquet"
            if not path.exists():
                model, tokenizer = es.load_model("demo")
                train, test = (es.flat_pairs(es.load_pairs(data_path(task, part))) for part in ("train", "test"))
                hp = load_hparams(hparams_path(f"demo/{task}/split_{form}"))
                ((_, artifact),) = train_from(hp, model, tokenizer, train)
                es.sweep(model, tokenizer, test[:200], artifact, np.linspace(-6, 6, 121), "sum").save(path)
            found.append(SweepTable.load(path))
    return found


def draw(kind: str, rng: np.random.Generator, real: list[SweepTable]) -> tuple[Pairs, Pairs, float]:
    """Pairs to sweep, fresh pairs of the same curve, and the reach of the sweep."""
    if kind == "real":
        table = real[rng.integers(len(real))]
        order, n = rng.permutation(table.loss_pos.shape[1]), int(rng.integers(20, 61))
        return of_sweep(table, order[:n]), of_sweep(table, order[n:]), 6.0
    reach, n = float(rng.choice([1.0, 6.0, 20.0])), int(np.exp(rng.uniform(np.log(20), np.log(200))))
    both = of_law(rng, reach) if kind == "law" else not_of_law(rng, reach, kind)
    return of_curves(rng, *both, reach, n), of_curves(rng, *both, reach, FRESH), reach


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=2000, help="of the law, and as many that are not")
    parser.add_argument("--sweeps", type=Path, default=Path("runs/dense"), help="folder of dense sweeps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print the reliable advice that was wrong")
    args = parser.parse_args()
    real = dense_sweeps(args.sweeps)
    tallies: dict[tuple[str, str], Tally] = {}
    begin, none = time.process_time(), dict.fromkeys(("law", "steps", "bumps", "real"), 0)
    for number in range(2 * args.curves):
        kind = "law" if number % 2 == 0 else ("steps", "bumps", "real")[number // 2 % 3]
        rng = np.random.default_rng([args.seed, number])
        pairs, fresh, reach = draw(kind, rng, real)
        budget, points = float(rng.choice(BUDGETS)), int(rng.choice([13, 25, 41]))
        try:
            answers = ask(pairs, pairs.table(np.linspace(-reach, reach, points)), budget, number)
        except FitError:
            answers = {}
        none[kind] += not answers
        true = Truth(fresh, reach)
        for way, (m, interval, reliable, swept) in answers.items():
            tally = tallies.setdefault((kind, way), Tally())
            if m is None:
                continue
            loss, best = true.ask(m, swept, budget)
            over = loss > budget + BEYOND
            tally.advised += 1
            tally.reliable += reliable
            tally.overspent += over and reliable
            tally.overspent_any += over
            if interval is not None:
                grid = 2 * reach / (DENSE - 1)
                held = interval[0] - grid <= best <= interval[1] + grid
                tally.held += held
                tally.held_reliable += held and reliable
            if args.verbose and reliable and way == "measured" and (over or not held):
                print(kind, number, f"pairs {pairs.n} points {points} budget {budget} reach {reach} m {m:.3g} "
                      f"{interval} fresh loss {loss:.2f} best {best:.3g}", flush=True)  # fmt: skip
        if (number + 1) % 500 == 0 or number + 1 == 2 * args.curves:
            show(dict(tallies), none, time.process_time() - begin)


def show(tallies: dict[tuple[str, str], Tally], none: dict[str, int], seconds: float) -> None:
    """The table, with the kinds that are not of the law also taken together."""
    for way in WAYS:
        parts = [tallies[kind, way] for kind in ("steps", "bumps", "real") if (kind, way) in tallies]
        total = {name: sum(getattr(p, name) for p in parts) for name in Tally.__dataclass_fields__}
        tallies["not of the law", way] = replace(Tally(), **total)
    print("| curves | advice | asked | refused | overspent, reliable | overspent, any | best m held, reliable | any |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for kind in ("law", "not of the law", "steps", "bumps", "real"):
        for way in WAYS:
            t = tallies.get((kind, way), Tally())
            if not t.advised:
                continue
            held = [f"{a / max(b, 1):.1%}" if way in ("swept", "measured") else "-"
                    for a, b in ((t.held_reliable, t.reliable), (t.held, t.advised))]  # fmt: skip
            over = f"{t.overspent / max(t.reliable, 1):.2%}", f"{t.overspent_any / t.advised:.1%}"
            cells = (kind, way, str(t.advised), f"{1 - t.reliable / t.advised:.1%}", *over, *held)
            print("| " + " | ".join(cells) + " |")
    print(f"\nno advice at all: {none}; processor time {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
