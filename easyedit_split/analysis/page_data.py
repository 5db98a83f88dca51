"""What the report's page knows of each method, as plain lists for its script; nats, NaN as None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .drawn_lines import lines
from .logodds import Curve
from .pareto import measured_front
from .pipeline import Analysis
from .plots import has_front, spending
from .result import FitResult
from .texts import SweptTexts

Picture = tuple[str, tuple[Path, Path]]  # caption, (png, svg)

DRAWN = 201  # strengths at which a curve is drawn


@dataclass(frozen=True, eq=False)
class Method:
    """One method of a report: its name, what else it is called, its sweep in one or both reductions, and its texts.

    `analyses`: reduction -> analysis; the first is the one that is reported. `text_picture`: the measures of its texts.
    """

    name: str
    folder: str
    analyses: Mapping[str, Analysis]
    texts: SweptTexts | None = None
    text_picture: Picture | None = None

    @property
    def main(self) -> Analysis:
        return next(iter(self.analyses.values()))


def page_data(methods: list[Method]) -> dict[str, Any]:
    """Everything that the page's script draws."""
    every = {(m.name, r): one for m in methods for r, one in m.analyses.items()}
    known = [(r, one.recommendation.max_utility_drop) for (_, r), one in every.items() if one.recommendation]
    return {
        "budget": known[0][1] if known else None,
        "budgets": dict(reversed(known)),  # reduction -> that of the first method
        "spending": spending(every),
        "methods": [
            {
                "name": method.name, "sweeps": {r: _sweep(one) for r, one in method.analyses.items()},
                "texts": None if method.texts is None else _texts(method.texts, method.main),
            }
            for method in methods
        ],
    }  # fmt: skip


def _sweep(found: Analysis) -> dict[str, Any]:
    best, edge = found.recommendation, measured_front(found.measured) if has_front(found) else None
    points = found.measured
    return {
        "m": plain(found.preference.m),
        "preference": _curve(found.preference, found.preference_interval, found.preference_fit),
        "utility": _curve(found.utility, found.utility_interval, found.utility_fit),
        "best": None if best is None or best.m is None else {
            "m": best.m, "interval": best.interval, "reliable": best.reliable,
            "preference": plain(best.preference), "utility": plain(best.utility),
            "gain": plain(best.preference_gain), "loss": plain(best.utility_drop),
        },
        "front": None if edge is None else {
            "m": plain(edge.m), "gain": plain(edge.preference_gain), "loss": plain(edge.utility_drop),
        },
        "measured": None if not _zero_measured(found) else {
            "m": plain(points.m), "gain": plain(points.gain), "loss": plain(points.spent),
        },
    }  # fmt: skip


def _zero_measured(found: Analysis) -> bool:
    """Whether gains and losses can be counted from a measured m = 0."""
    return bool(found.measured.swept[found.measured.zero])


def _curve(curve: Curve, interval: Any, fit: FitResult | None) -> dict[str, Any]:
    m, law, joined = lines(curve, interval, fit, DRAWN)
    return {
        "mean": plain(curve.mean), "interval": plain(interval), "undefined": curve.undefined.tolist(),
        "line": {"m": plain(m), "law": plain(law), "joined": plain(joined)},
    }  # fmt: skip


def _texts(texts: SweptTexts, found: Analysis) -> dict[str, Any]:
    """The texts of every strength, with what was gained and lost there, as far as that was measured."""
    known = _zero_measured(found)
    steps = [found.measured_at(float(m)) if known else (np.nan, np.nan) for m in texts.m]
    return {
        "m": plain(texts.m), "answers": [list(row) for row in texts.answers],
        "gain": [plain(gain) for gain, _ in steps], "loss": [plain(loss) for _, loss in steps],
    }  # fmt: skip


def plain(values: Any) -> Any:
    """Nested lists of five digits, in which what is not finite is None."""
    if np.ndim(values):
        return [plain(value) for value in values]
    return float(f"{float(values):.5g}") if np.isfinite(values) else None
