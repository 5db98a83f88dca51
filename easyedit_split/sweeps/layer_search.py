"""Which layer to steer: a DiffMean vector at every layer, a short sweep of each, preference gained at a fixed budget.

DiffMean needs no training, so the search costs one pass over the pairs and one short sweep a layer. It ranks layers
for any form: the place where a concept is written down is the same.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..analysis.canvas import blank, save_figure, star, style, tidy
from ..analysis.legends import legend, line
from ..analysis.logodds import nats
from ..analysis.pareto import BUDGETS, front_at_budgets, interval
from ..data.pairs import PreferencePair
from ..errors import ConfigError, DataError
from ..models.parts import decoder_layers
from ..models.protocols import CausalLM, Tokenizer
from ..scoring.probe import probed_once
from ..storage.files import write_text
from ..training.diff_mean import diff_mean
from .factors import sweep_factors
from .run import sweep

N_BOOT = 200
MIN_PAIRS = 8
HELD_OUT = 0.25


@dataclass(frozen=True)
class LayerScore:
    """What one layer gives: `gains` in nats of preference at each of `BUDGETS` nats of utility.

    `low`, `high`: 95% bootstrap interval, over the held-out pairs, of the gain at the budget asked for. `reach`: the
    largest strength swept, where the vector has spent its utility.
    """

    layer: int
    gain: float
    low: float
    high: float
    gains: tuple[float, ...]
    reach: float


def search_layers(
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    *,
    budget: float = 1.0,
    layers: Sequence[int] | None = None,
    points: int = 21,
    chat: bool = True,
    system_prompt: str = "",
    progress: bool = False,
) -> list[LayerScore]:
    """A score for each layer, in the order of the layers. The last quarter of `pairs` is swept, the rest estimates.

    Args:
        budget: nats of utility that may be spent.
        layers: which to try; None: all.
        points: strengths of each sweep, placed by the vector's own reach.

    Raises:
        ConfigError: a budget below 0, or a layer the model does not have.
        DataError: fewer than 8 pairs.
    """
    depth = len(decoder_layers(model))
    chosen = list(range(depth)) if layers is None else list(layers)
    wrong = [i for i in chosen if not 0 <= i < depth]
    if wrong:
        raise ConfigError(f"layer {wrong[0]} does not exist: the model has layers 0 to {depth - 1}")
    if not chosen or budget < 0:
        raise ConfigError(f"budget = {budget}, layers = {chosen}: give 0 or more nats, and one layer or more")
    if len(pairs) < MIN_PAIRS:
        raise DataError(f"{len(pairs)} pairs are too few to rank layers: give {MIN_PAIRS} or more")
    cut = len(pairs) - max(2, int(len(pairs) * HELD_OUT))
    shared: dict[str, Any] = {"chat": chat, "system_prompt": system_prompt}
    found, held = [], pairs[cut:]
    with probed_once():
        vectors = diff_mean(model, tokenizer, pairs[:cut], layer=sorted(set(chosen)), **shared)
        vector_at = {part.site.sites[0].layer: part for part in vectors.parts}
        for layer in tqdm(chosen, "layers", unit="layer", disable=not progress):
            factors = sweep_factors(model, tokenizer, held, vector_at[layer], points)
            table = sweep(model, tokenizer, held, vector_at[layer], factors, "sum")
            found.append(_score(layer, table, budget))
    return found


def best_layer(scores: Sequence[LayerScore]) -> LayerScore:
    """The layer of highest gain; of equals the first."""
    return max(scores, key=lambda s: (s.gain, -s.layer))


def write_layers(scores: Sequence[LayerScore], budget: float, folder: str | Path) -> list[Path]:
    """Write `layers.csv`, `layers.png` and `layers.svg`; returns their paths."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["layer", "gain", "low", "high", *(f"gain at {nats(b)}" for b in BUDGETS), "reach"])
    writer.writerows([s.layer, s.gain, s.low, s.high, *s.gains, s.reach] for s in scores)
    path = write_text(Path(folder) / "layers.csv", out.getvalue())
    return [path, *save_figure(plot_layers(scores, budget), Path(folder) / "layers")]


def plot_layers(scores: Sequence[LayerScore], budget: float) -> Any:
    """Preference gained at the budget against the layer, with intervals; the best layer has a star, hollow where its
    gain may be none."""
    from matplotlib.ticker import MaxNLocator

    figure, look = blank(3.6), style(0)
    axes = figure.subplots()
    at = [s.layer for s in scores]
    gain, low, high = (np.array([getattr(s, name) for s in scores]) for name in ("gain", "low", "high"))
    spread = np.clip([gain - low, high - gain], 0.0, None)
    axes.errorbar(
        at, gain, yerr=spread, fmt=look["marker"], color=look["color"], markersize=4, elinewidth=0.9, alpha=0.75
    )
    axes.plot(at, gain, "-", color=look["color"], linewidth=0.7, alpha=0.7)
    best = best_layer(scores)
    reliable = best.low > 0
    star(axes, best.layer, best.gain, look["color"], reliable)
    axes.set_xlabel("Layer")
    axes.set_ylabel(f"Gain in preference within\n{nats(budget)} of utility (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    marked = line("best layer" if reliable else "best layer, which may gain nothing", marker="*", linestyle="",
                  markersize=10, color=look["color"], fillstyle="full" if reliable else "none")  # fmt: skip
    points = line("DiffMean vector, 95% interval", linewidth=0.7, markersize=4, **look)
    legend(figure, [points, marked], "", 2)
    return figure


def _score(layer: int, table: Any, budget: float) -> LayerScore:
    found = front_at_budgets(table, N_BOOT, [budget, *BUDGETS])
    low, high = interval(np.array(found["draws"])[:, 0])
    reach = float(np.abs(table.factors).max())
    return LayerScore(layer, found["gain"][0], low, high, tuple(found["gain"][1:]), reach)
