"""Figures: the curves in the manner of the paper's Figure 2, the preference-utility front, the measured manifold.

Preference is solid and utility dashed, as in the paper, but in two panels over one axis of m: with sums over tokens the
two differ in size so much that one of them would be a flat line. The style is that of ``canvas``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from . import legends
from .canvas import FAINT, blank, plain, star, style, tidy
from .drawn_lines import lines
from .logodds import Curve, nats
from .manifold import MeasuredDecay
from .pareto import BUDGETS, Front, measured_front
from .pipeline import Analysis
from .recommend import Recommendation
from .result import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAR = 3.0  # times the median reach of the methods in a figure
SPENDING = BUDGETS[-1]  # nats of utility that the axis of a front shows, or twice the budget where that is more


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
    figure = blank(6.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    single = len(analyses) == 1
    for number, (label, found) in enumerate(analyses.items()):
        look = style(number)
        if single:
            _shade(upper, lower, found)
        _draw(upper, found.preference, found.preference_interval, found.preference_fit, "-", look, label)
        _draw(lower, found.utility, found.utility_interval, found.utility_fit, "--", look, label)
        _mark(upper, lower, found, look["color"])
    for axes, name in ((upper, "Preference"), (lower, "Utility")):
        axes.set_ylabel(f"{name} log-odds (nats)")
        _zero(axes)
        tidy(axes)
    lower.set_xlim(*_reach(analyses))
    lower.set_xlabel("\n".join(["Steering strength m", *_undefined(analyses)]))
    handles = [
        *legends.methods(analyses),
        *legends.law(),
        *legends.stars([one.recommendation for one in analyses.values()]),
    ]
    handles += legends.regions(next(iter(analyses.values()))) if single else []
    legends.legend(figure, handles, title, 3 if max(len(handle.get_label()) for handle in handles) <= 36 else 2)
    return figure


def spending(analyses: Mapping[Any, Analysis]) -> float:
    """Nats of utility that the axis of a front goes to: 4, or twice the budget where that is more."""
    asked = [one.recommendation.max_utility_drop for one in analyses.values() if one.recommendation is not None]
    return max(SPENDING, *(2 * budget for budget in asked)) if asked else SPENDING


def plot_front(analyses: Mapping[str, Analysis], title: str = "") -> Figure:
    """Gain in preference against loss of utility, both from m = 0, along the front of each method; up and left is
    better.

    The axis ends at 4 nats, or at twice the budget, and the budget is a line. Points are measured ones on the front's
    side of 0, lines join them, stars the recommended m (hollow where it is not reliable).

    Raises:
        FitError: no method has both fits and a utility that was measured at m = 0.
    """
    _need(analyses)
    figure = blank(4.4)
    axes = figure.subplots()
    fronts = {label: measured_front(one.measured) for label, one in analyses.items() if has_front(one)}
    if not fronts:
        raise FitError("No method has both fits and a utility at m = 0, so there is no front to plot; see the notes.")
    end = spending(analyses)
    for number, (label, edge) in enumerate(fronts.items()):
        found, look = analyses[label], style(number)
        drop, gain = _shown_front(edge, end)
        axes.plot(drop, gain, color=look["color"], linewidth=1.6)
        loss, gained = _points_on_side(found, edge, end)
        axes.plot(loss, gained, look["marker"], color=look["color"], markersize=4, alpha=0.7)
        best = found.recommendation
        if best is not None and best.m is not None and best.utility_drop <= end:
            star(axes, best.utility_drop, best.preference_gain, look["color"], best.reliable)
    budgets = dict.fromkeys(one.recommendation.max_utility_drop for one in analyses.values() if one.recommendation)
    for budget in budgets:
        axes.axvline(budget, color=FAINT, linewidth=0.9, linestyle="--", zorder=0.5)
    axes.set_xlim(-0.02 * end, end)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel("Loss of utility from m = 0, or from its peak on the way (nats)")
    axes.set_ylabel("Gain in preference from m = 0 (nats)")
    handles = legends.methods({label: analyses[label] for label in fronts})
    handles += [
        legends.line(f"budget, {nats(budget)}", color=FAINT, linestyle="--", linewidth=0.9) for budget in budgets
    ]
    handles += legends.stars([analyses[label].recommendation for label in fronts])
    legends.legend(figure, handles, title, 2 if max(len(handle.get_label()) for handle in handles) <= 44 else 1)
    tidy(axes)
    axes.margins(x=0)
    return figure


def has_front(found: Analysis) -> bool:
    """Whether gains and losses were measured, against a measured m = 0."""
    return found.recommendation is not None and found.recommendation.measured


def _shown_front(edge: Front, end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses up to `end` and the gains there; past its last point a front stays what it is."""
    gains = edge.preference_gain >= 0
    drop, gain = edge.utility_drop[gains], edge.preference_gain[gains]
    inside = drop <= end
    return np.append(drop[inside], end), np.append(gain[inside], np.interp(end, drop, gain))


def _points_on_side(found: Analysis, edge: Front, end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses up to `end` and gains of the measured strengths on the side of 0 that the front's best strength is on."""
    side = np.sign(edge.m[np.argmax(np.where(edge.utility_drop <= end, edge.preference_gain, -np.inf))])
    points = found.measured
    shown = (points.m * side >= 0) & (points.gain >= 0) & (points.spent <= end) & points.swept
    return points.spent[shown], points.gain[shown]


def plot_manifold(measured: MeasuredDecay, title: str = "", best: Recommendation | None = None) -> Figure:
    """Measured D(m) (points) beside the fitted D(m) (line), and the distance off the manifold below.

    Args:
        best: the recommended strength of the same change, drawn as in ``plot_curves``.
    """
    figure = blank(5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    look = style(0)
    handles = [legends.line("measured from activations", linestyle="", markersize=4, **look)]
    upper.plot(measured.m, measured.decay, linestyle="-", linewidth=0.7, markersize=4, **look)
    if measured.fitted is not None:
        upper.plot(measured.m, measured.fitted, "-", color=look["color"], linewidth=1.7)
        handles.append(
            legends.line(
                f"fitted to the losses (rank correlation {measured.rank_correlation:.2f})", color=look["color"]
            )
        )
    lower.plot(measured.m, measured.distance, linestyle="-", linewidth=0.7, markersize=4, **look)
    lower.axhline(1.0, color=FAINT, linewidth=0.9, linestyle="--")
    handles.append(legends.line("radius of the clean activations", color=FAINT, linestyle="--", linewidth=0.9))
    upper.set_ylabel("D(m) over D(0)")
    lower.set_ylabel("Distance off the\nmanifold over epsilon")
    lower.set_xlabel("Steering strength m")
    lower.set_ylim(bottom=0.0)
    if best is not None and best.m is not None and measured.m[0] <= best.m <= measured.m[-1]:
        for axes, values in ((upper, measured.decay), (lower, measured.distance)):
            axes.axvline(best.m, color=look["color"], linewidth=0.9, linestyle=":", zorder=1)
            star(axes, best.m, float(np.interp(best.m, measured.m, values)), look["color"], best.reliable)
        handles += legends.stars([best])
    for axes in (upper, lower):
        _zero(axes)
        tidy(axes)
    legends.legend(figure, handles, title, 2)
    return figure


def _need(analyses: Mapping[str, Analysis]) -> None:
    if not analyses:
        raise FitError("There is no analysis to plot; give at least one.")


def _zero(axes: Axes) -> None:
    axes.axvline(0.0, color=FAINT, linewidth=0.6, zorder=0.5)


def _draw(
    axes: Axes, curve: Curve, interval: NDArray[np.float64], fit: FitResult | None, line: str,
    look: dict[str, str], label: str,
) -> None:  # fmt: skip
    """Points with intervals, the fitted law where they bear it out, and lines between them elsewhere."""
    low, high = curve.mean - interval[:, 0], interval[:, 1] - curve.mean
    axes.errorbar(
        curve.m, curve.mean, yerr=np.clip([low, high], 0.0, None), fmt=look["marker"], color=look["color"],
        markersize=3.4, elinewidth=0.9, alpha=0.75, label=plain(label),
    )  # fmt: skip
    m, law, joined = lines(curve, interval, fit)
    if fit is not None:
        axes.plot(m, law, line, color=look["color"], linewidth=1.7)
    axes.plot(m, joined, "-", color=look["color"], linewidth=0.7, alpha=0.7)


def _mark(upper: Axes, lower: Axes, found: Analysis, colour: str) -> None:
    """The recommended m: a line through both panels, its interval as a band, a star on each curve."""
    best = found.recommendation
    if best is None or best.m is None:
        return
    for axes, value in ((upper, best.preference), (lower, best.utility)):
        axes.axvline(best.m, color=colour, linewidth=0.9, linestyle=":", zorder=1)
        star(axes, best.m, value, colour, best.reliable)
    if best.interval is not None:
        low, high = best.interval
        for axes in (upper, lower):
            axes.axvspan(low, high, color=colour, alpha=0.15, linewidth=0, zorder=0.2)


def _reach(analyses: Mapping[str, Analysis]) -> tuple[float, float]:
    """Strengths to show: all of them, unless one method was swept far beyond the others and would leave them a line;
    every recommended one with its interval."""
    ends = np.array([(one.preference.m.min(), one.preference.m.max()) for one in analyses.values()])
    low, high = (np.clip(e, *sorted((0.0, FAR * np.median(e)))) if len(e) > 2 else e for e in ends.T)
    best = [one.recommendation for one in analyses.values()]
    seen = [end for b in best if b is not None and b.m is not None for end in (b.m, *(b.interval or ()))]
    low, high = np.append(low, seen), np.append(high, seen)
    margin = 0.02 * (high.max() - low.min()) or 1.0
    return float(low.min() - margin), float(high.max() + margin)


def _shade(upper: Axes, lower: Axes, found: Analysis) -> None:
    if found.regions is None:
        return
    for name, low, high in found.regions.spans():
        for axes in (upper, lower):
            axes.axvspan(low, high, color=legends.REGION_SHADES[name], linewidth=0, zorder=0)


def _undefined(analyses: Mapping[str, Analysis]) -> list[str]:
    """Undefined utility points, said on the figure whenever there are any."""
    return [
        f"{plain(label)}: {found.utility.n_undefined} of {found.utility.n_points} utility points undefined"
        for label, found in analyses.items()
        if found.utility.n_undefined
    ]
