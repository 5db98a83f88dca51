"""The measures of texts over m, as a table and as a figure, with the band of strengths at which they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FitError
from . import legends
from .canvas import FAINT, blank, plain, style, tidy
from .logodds import Curve
from .pipeline import Analysis
from .tables import Cell, Key, Table, label
from .text_band import text_checks
from .texts import Array, TextMeasures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = "#d9efe3"


def measures_of(found: Analysis) -> TextMeasures | None:
    return None if found.texts is None else found.texts.measures


def dose_said(measures: TextMeasures, found: Analysis) -> str:
    """The relative dose at the recommended strength, or at the largest one swept."""
    best = found.recommendation
    m = np.asarray([] if found.texts is None else found.texts.m)
    row = None if best is None or best.m is None or found.texts is None else found.texts.at(best.m)
    at = int(np.argmax(np.abs(m))) if row is None else row
    return f"at m = {m[at]:.3g} what is added is {measures.dose[at]:.2g} times as large as what it is added to"


def likelier_share(preference: Curve) -> Array:
    """(M,) share of the pairs whose wanted answer is the likelier one, a tie half; NaN where none is defined."""
    known = np.isfinite(preference.values)
    with np.errstate(invalid="ignore"):
        wins = np.where(known, (preference.values > 0) + 0.5 * (preference.values == 0), 0.0)
        return np.asarray(wins.sum(axis=1) / known.sum(axis=1))


def text_table(analyses: Mapping[Key, Analysis]) -> Table:
    """One row a strength of every method whose texts were measured."""
    columns = (
        "Method", "m", "perplexity", "repetition", "KL (nats a token)", "wanted answer likelier (share)",
        "relative dose", "fails",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for key, found in analyses.items():
        measures = measures_of(found)
        if found.texts is None or measures is None:
            continue
        checks, share = text_checks(measures), likelier_share(found.preference)
        for row, m in enumerate(found.texts.m.tolist()):
            likelier = share[np.isclose(found.preference.m, m, rtol=1e-9, atol=1e-12)]
            rows.append((
                label(key), m, *(float(check.values[row]) for check in checks),
                float(likelier[0]) if len(likelier) else None, float(measures.dose[row]),
                ", ".join(check.name for check in checks if not check.holds[row]),
            ))  # fmt: skip
    title = (
        "Texts at every strength: perplexity of the answers under the unsteered model, repeated word triples, KL from "
        "the unsteered model on unrelated prompts, pairs whose wanted answer is likelier, |m| |dh| / |h| at the site"
    )
    return Table("texts", title, columns, tuple(rows))


def plot_texts(name: str, found: Analysis, number: int = 0) -> Figure:
    """Perplexity, repetition, divergence and the concept's likelihood over m, the band shaded, the bounds dashed.

    Args:
        found: of a sweep whose texts were measured. number: the method's place, for its colour.
    Raises:
        FitError: they were not.
    """
    measures, texts = measures_of(found), found.texts
    if measures is None or texts is None:
        raise FitError("No text was measured, so there is nothing to plot: sweep with --texts N.")
    figure, look = blank(4.6), {**style(number)}
    panels = figure.subplots(2, 2, sharex=True).ravel()
    titles = ("Perplexity of answers, unsteered model", "Repeated word triples, share",
              "KL on unrelated prompts, nats a token")  # fmt: skip
    for axes, check, title in zip(panels, text_checks(measures), titles, strict=False):
        _panel(axes, texts.m, check.values, title, look)
        axes.axhline(check.bound, color=FAINT, linewidth=0.9, linestyle="--")
    _logarithmic(panels[0])
    _panel(panels[3], found.preference.m, likelier_share(found.preference), "Wanted answer likelier, share of pairs",
           look)  # fmt: skip
    best = found.recommendation
    for axes in panels:
        if best is not None and best.texts is not None:
            axes.axvspan(best.texts.low, best.texts.high, color=BAND, zorder=0)
        if best is not None and best.m is not None:
            axes.axvline(best.m, color=look["color"], linewidth=1.0, linestyle=":")
    for axes in panels[2:]:
        axes.set_xlabel("Steering strength m")
    handles = [legends.line(plain(name), markersize=4, **look), legends.line("bound", color=FAINT, linestyle="--")]
    if best is not None and best.texts is not None:
        handles.append(legends.patch("texts hold", BAND))
    if best is not None and best.m is not None:
        verdict = "recommended" if best.reliable else "not reliable:"
        handles.append(legends.line(f"{verdict} m = {best.m:.3g}", color=look["color"], linestyle=":"))
    legends.legend(figure, handles, "", 4)
    return figure


def _logarithmic(axes: Axes) -> None:
    """An axis of factors, with plain numbers at it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _panel(axes: Axes, m: Array, values: Array, title: str, look: dict[str, Any]) -> None:
    axes.plot(m, values, linewidth=1.2, markersize=3.5, **look)
    axes.set_title(title, fontsize=9.5, loc="left")
    tidy(axes)
