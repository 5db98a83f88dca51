"""Figures: the curves in the manner of the paper's Figure 2, the preference-utility front, the measured
manifold.

Preference is solid and utility dashed, as in the paper, but in two panels over one axis of m: with sums over
tokens the two differ in size so much that one of them would be a flat line. Colours are those of Okabe and
Ito, which remain apart for colour-blind readers; methods also differ in their markers.
matplotlib is loaded on first use, and without pyplot, so no window, no global state.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from ..storage.files import write_bytes
from .logodds import Curve
from .manifold import MeasuredDecay
from .measured import cubic
from .pareto import measured_front
from .pipeline import Analysis
from .recommend import Recommendation
from .result import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAR = 0.015  # share of a curve's range by which the law may miss a point that bears it out
FAR = 3.0  # times the median reach of the methods in a figure
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REGION_SHADES = {"linear": "#e3ecf3", "transitional": "#f4f4f4", "convergence": "#dcdcdc"}
WIDTH, DPI = 7.4, 160


def plot_curves(analyses: Mapping[str, Analysis], title: str = "") -> Figure:
    """Preference (solid) above utility (dashed) over m, for one or several methods.

    Points are means over examples with 95% bootstrap intervals, lines the fitted law where the points bear it out
    (thin ones join the points elsewhere), a star the recommended m, hollow where it is not reliable, a band its
    interval. With one method the regions that its preference curve bears out are shaded.

    Args:
        analyses: label of a method -> its analysis.
    Raises:
        FitError: there is nothing to plot.
    """
    _need(analyses)
    figure = _figure(6.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    single = len(analyses) == 1
    for number, (label, found) in enumerate(analyses.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        if single:
            _shade(upper, lower, found)
        _draw(upper, found.preference, found.preference_interval, found.preference_fit, "-", style, label)
        _draw(lower, found.utility, found.utility_interval, found.utility_fit, "--", style, label)
        _mark(upper, lower, found, style["color"])
    for axes, name in ((upper, "Preference"), (lower, "Utility")):
        axes.set_ylabel(f"{name} log-odds (nats)")
        axes.axvline(0.0, color="#888888", linewidth=0.6, zorder=0.5)
        _tidy(axes)
    lower.set_xlim(*_reach(analyses))
    lower.set_xlabel("\n".join(["Steering strength m", *_undefined(analyses)]))
    _legend(figure, analyses, single, title)
    return figure


def plot_front(analyses: Mapping[str, Analysis], title: str = "") -> Figure:
    """Gain in preference against loss of utility, both from m = 0, along the front of each method.

    Points are measured, lines join them, stars the recommended m (hollow where it is not reliable);
    up and to the left is better. Only strengths that raise preference are drawn, and points as far as the longest
    front.

    Raises:
        FitError: no method has both fits and a utility that was measured at m = 0.
    """
    _need(analyses)
    figure = _figure(4.4)
    axes = figure.subplots()
    fronts = {
        label: measured_front(one.measured)
        for label, one in analyses.items()
        if one.recommendation is not None and one.recommendation.measured
    }
    if not fronts:
        raise FitError("No method has both fits and a utility at m = 0, so there is no front to plot; see the notes.")
    furthest = max(edge.utility_drop[-1] for edge in fronts.values())
    for number, (label, edge) in enumerate(fronts.items()):
        found, colour = analyses[label], COLOURS[number % len(COLOURS)]
        gains = edge.preference_gain >= 0
        axes.plot(
            edge.utility_drop[gains],
            edge.preference_gain[gains],
            color=colour,
            linewidth=1.6,
            label=_named(label, found),
        )
        gain, loss = found.measured.gain, found.measured.spent
        shown = (gain >= 0) & (loss <= furthest)
        axes.plot(loss[shown], gain[shown], MARKERS[number % len(MARKERS)], color=colour, markersize=4, alpha=0.7)
        best = found.recommendation
        if best is not None and best.m is not None:
            _star(axes, best.utility_drop, best, best.preference_gain, colour)
    axes.axvline(0.0, color="#888888", linewidth=0.6, zorder=0.5)
    axes.set_xlabel("Loss of utility from m = 0, or from its peak on the way (nats)")
    axes.set_ylabel("Gain in preference from m = 0 (nats)")
    longest = max(len(_named(label, analyses[label])) for label in fronts)
    figure.legend(
        loc="outside upper left", ncols=2 if longest <= 44 else 1, frameon=False, fontsize=8.5, alignment="left",
        title=_plain(title) or None, title_fontsize=11,
    )  # fmt: skip
    _tidy(axes)
    return figure


def plot_manifold(measured: MeasuredDecay, title: str = "") -> Figure:
    """Measured D(m) (points) beside the fitted D(m) (line), and the distance off the manifold below."""
    figure = _figure(5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(measured.m, measured.decay, "o", color=COLOURS[0], markersize=4, label="measured from activations")
    if measured.fitted is not None:
        label = f"fitted to the losses (rank correlation {measured.rank_correlation:.2f})"
        upper.plot(measured.m, measured.fitted, "-", color=COLOURS[1], linewidth=1.5, label=label)
    upper.set_ylabel("D(m) over D(0)")
    upper.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    lower.plot(measured.m, measured.distance, "-", color=COLOURS[2], linewidth=1.5)
    lower.axhline(1.0, color="#888888", linewidth=0.8, linestyle=":")
    lower.annotate("radius of the clean activations", (measured.m[0], 1.0), xytext=(2, 3),
                   textcoords="offset points", fontsize=8, color="#555555")  # fmt: skip
    lower.set_ylabel("Distance off the\nmanifold over epsilon")
    lower.set_xlabel("Steering strength m")
    lower.set_ylim(bottom=0.0)
    if title:
        figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=11)
    for axes in (upper, lower):
        _tidy(axes)
    return figure


def save_figure(figure: Figure, stem: str | Path) -> tuple[Path, Path]:
    """Write ``stem``.png and ``stem``.svg and return both paths. The same figure gives the same bytes.

    Raises:
        ArtifactError: a file cannot be written.
    """
    import matplotlib

    base, png, svg = Path(stem), BytesIO(), BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "easyedit-split"}):
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return (
        write_bytes(base.with_name(base.name + ".png"), png.getvalue()),
        write_bytes(base.with_name(base.name + ".svg"), svg.getvalue()),
    )


def _figure(height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _need(analyses: Mapping[str, Analysis]) -> None:
    if not analyses:
        raise FitError("There is no analysis to plot; give at least one.")


def _draw(
    axes: Axes, curve: Curve, interval: NDArray[np.float64], fit: FitResult | None, line: str,
    style: dict[str, str], label: str,
) -> None:  # fmt: skip
    """Points with intervals, and the fitted law where they bear it out."""
    low, high = curve.mean - interval[:, 0], interval[:, 1] - curve.mean
    axes.errorbar(
        curve.m, curve.mean, yerr=np.clip([low, high], 0.0, None), fmt=style["marker"], color=style["color"],
        markersize=3.4, elinewidth=0.9, alpha=0.75, label=_plain(label),
    )  # fmt: skip
    m, law, joined = _lines(curve, interval, fit)
    if fit is not None:
        axes.plot(m, law, line, color=style["color"], linewidth=1.7)
    axes.plot(m, joined, "-", color=style["color"], linewidth=0.7, alpha=0.7)


def _lines(
    curve: Curve, interval: NDArray[np.float64], fit: FitResult | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Strengths, the law where the points on both sides bear it out, and elsewhere the points joined; NaN otherwise.

    Borne out: the law is within the interval of both points and 3% of the curve's range, or within 1.5% of that range,
    and as near to the joined points all the way between them. (Pairs differ by more than their curves bend, so that an
    interval alone would bear out anything.)
    """
    known = np.isfinite(curve.mean)
    at, mean, half = curve.m[known], curve.mean[known], np.diff(interval[known], axis=1)[:, 0] / 2
    m = np.union1d(np.linspace(at[0], at[-1], 801), at)
    chord = np.interp(m, at, mean)
    if fit is None or len(at) < 2:
        return m, np.full(len(m), np.nan), chord
    law = fit.predict(m)
    near = np.clip(np.interp(m, at, half), NEAR * np.ptp(mean), 2 * NEAR * np.ptp(mean))
    points = np.searchsorted(m, at)
    good = np.abs(law - chord) <= near
    curved = np.abs(law - cubic(at, mean, m)) <= near
    drawn = np.array([good[[a, b]].all() and curved[a : b + 1].all() for a, b in itertools.pairwise(points)])
    gap = np.clip(np.searchsorted(at, m, side="right") - 1, 0, len(at) - 2)
    here, before = drawn[gap], drawn[np.clip(np.searchsorted(at, m, side="left") - 1, 0, len(at) - 2)]
    return m, np.where(here | before, law, np.nan), np.where(here & before, np.nan, chord)


def _star(axes: Axes, x: float, best: Recommendation, y: float, colour: str) -> None:
    """A star at the recommended strength: hollow where it is not reliable."""
    edge, filled = ("white", "full") if best.reliable else (colour, "none")
    axes.plot(x, y, "*", color=colour, markersize=13, fillstyle=filled, markeredgecolor=edge, zorder=5)


def _mark(upper: Axes, lower: Axes, found: Analysis, colour: str) -> None:
    """The recommended m: a line through both panels, its interval as a band, a star on each curve."""
    best = found.recommendation
    if best is None or best.m is None:
        return
    for axes, value in ((upper, best.preference), (lower, best.utility)):
        axes.axvline(best.m, color=colour, linewidth=0.9, linestyle=":", zorder=1)
        _star(axes, best.m, best, value, colour)
    if best.interval is not None:
        low, high = best.interval
        for axes in (upper, lower):
            axes.axvspan(low, high, color=colour, alpha=0.15, linewidth=0, zorder=0.2)


def _reach(analyses: Mapping[str, Analysis]) -> tuple[float, float]:
    """Strengths to show: all of them, unless one method was swept far beyond the others and would leave them a line."""
    ends = np.array([(one.preference.m.min(), one.preference.m.max()) for one in analyses.values()])
    low, high = (np.clip(e, *sorted((0.0, FAR * np.median(e)))) if len(e) > 2 else e for e in ends.T)
    margin = 0.02 * (high.max() - low.min())
    return float(low.min() - margin), float(high.max() + margin)


def _shade(upper: Axes, lower: Axes, found: Analysis) -> None:
    if found.regions is None:
        return
    for name, low, high in found.regions.spans():
        for axes in (upper, lower):
            axes.axvspan(low, high, color=REGION_SHADES[name], linewidth=0, zorder=0)


def _plain(label: str) -> str:
    """A label as matplotlib shows it: `$` is no mathematics, and a leading `_` does not hide it."""
    text = " ".join(label.encode("utf-8", "backslashreplace").decode().split()).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _named(label: str, found: Analysis) -> str:
    """A method with its strength, for a legend."""
    best = found.recommendation
    if best is None or best.m is None:
        return _plain(label)
    return f"{_plain(label)}: {'use' if best.reliable else 'not reliable:'} {best.strength}"


def _legend(figure: Figure, analyses: Mapping[str, Analysis], single: bool, title: str) -> None:
    """One legend above the panels, so that it covers no point."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for number, (label, found) in enumerate(analyses.items()):
        text = _named(label, found)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4, linestyle="", label=text))
    grey = "#444444"
    handles.append(Line2D([], [], color=grey, linestyle="-", label="preference, fitted law"))
    handles.append(Line2D([], [], color=grey, linestyle="--", label="utility, fitted law"))
    handles.append(Line2D([], [], color=grey, linestyle="-", linewidth=0.7, label="points joined"))
    handles.append(Line2D([], [], color=grey, marker="*", linestyle=":", markersize=10, label="recommended m"))
    if not all(one.recommendation is None or one.recommendation.reliable for one in analyses.values()):
        handles.append(
            Line2D([], [], color=grey, marker="*", fillstyle="none", linestyle="", markersize=10, label="not reliable")
        )
    if single:
        named = next(iter(analyses.values())).regions
        present = set() if named is None else {span[0] for span in named.spans()}
        for name in (name for name in REGION_SHADES if name in present):
            handles.append(Patch(facecolor=REGION_SHADES[name], edgecolor="#bbbbbb", label=f"{name} region"))
    columns = 3 if max(len(handle.get_label()) for handle in handles) <= 36 else 2
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5, alignment="left",
        title=_plain(title) or None, title_fontsize=11,
    )  # fmt: skip


def _undefined(analyses: Mapping[str, Analysis]) -> list[str]:
    """Undefined utility points, said on the figure whenever there are any."""
    return [
        f"{_plain(label)}: {found.utility.n_undefined} of {found.utility.n_points} utility points undefined"
        for label, found in analyses.items()
        if found.utility.n_undefined
    ]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.margins(x=0.02)
