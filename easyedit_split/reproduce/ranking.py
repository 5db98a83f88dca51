"""SPLIT's place against SFT and RePS: cell by cell, as found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from ..analysis.logodds import nats
from ..analysis.pareto import BUDGETS
from ..analysis.tables import Table
from .aggregate import Key, Result, draws_over_seeds, gain, over_seeds, score
from .settings import headline

RIVALS = ("sft", "reps")


def place_table(groups: Mapping[Key, Sequence[Result]]) -> Table:
    """One row a data set, form and measure: SPLIT's value, its rivals', who is first, and the share of bootstrap draws
    (same examples for all) in which SPLIT is ahead of both."""
    rows = []
    for dataset, method, form in groups:
        if method != "split" or any((dataset, rival, form) not in groups for rival in RIVALS):
            continue
        trio = {name: groups[dataset, name, form] for name in ("split", *RIVALS)}
        for budget in BUDGETS:
            values = {name: gain(results, budget) for name, results in trio.items()}
            rows.append(_row(dataset, form, f"front, {nats(budget)}", values, _share_ahead(trio, budget)))
        column = headline(dataset)
        values = {name: over_seeds(results, partial(score, column=column)) for name, results in trio.items()}
        rows.append(_row(dataset, form, column, values, None))
    columns = ("data set", "form", "measure", "SPLIT", "SFT", "RePS", "first", "draws ahead of both")
    return Table("place", "SPLIT against SFT and RePS, as found", columns, tuple(rows))


def place_sentence(table: Table) -> str:
    """How often SPLIT is first or ties for first, on the front and on the headline scores."""
    parts = []
    for what, rows in (
        ("on the front (data sets x forms x budgets)", [r for r in table.rows if str(r[2]).startswith("front")]),
        ("on the headline score", [r for r in table.rows if not str(r[2]).startswith("front")]),
    ):
        known = [r for r in rows if r[6] != "-"]
        if known:
            ahead = sum(r[6] == "split" for r in known)
            tied = sum(r[6] == "tie" for r in known)
            parts.append(f"{ahead} of {len(known)} cells {what}" + (f" (and ties in {tied})" if tied else ""))
    return f"SPLIT is ahead of SFT and RePS in {' and in '.join(parts)}." if parts else ""


def _row(dataset: str, form: str, measure: str, values: Mapping[str, object], share: float | None) -> tuple:  # type: ignore[type-arg]
    means = {name: round(value.mean, 2) for name, value in values.items() if value is not None}  # type: ignore[attr-defined]
    first = "-"
    if len(means) == len(values):
        best = [name for name, mean in means.items() if mean == max(means.values())]
        first = best[0] if len(best) == 1 else "tie" if "split" in best else best[0]
    return dataset, form, measure, *(means.get(name) for name in ("split", *RIVALS)), first, share


def _share_ahead(trio: Mapping[str, Sequence[Result]], budget: float) -> float | None:
    found = {name: draws_over_seeds(results, budget) for name, results in trio.items()}
    draws = {name: d for name, d in found.items() if d is not None}
    if len(draws) < len(trio) or len({len(d) for d in draws.values()}) > 1:
        return None
    rivals = np.max([draws[name] for name in RIVALS], axis=0)
    return float((draws["split"] > rivals).mean())
