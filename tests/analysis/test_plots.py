"""Figures for papers: what an axis shows, which points are drawn, and what is hollow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sweeps import sweep

from easyedit_split import analysis
from easyedit_split.analysis import plots
from easyedit_split.analysis.manifold import MeasuredDecay


@pytest.fixture(scope="module")
def found():
    return analysis.analyse(sweep(0), n_boot=50)


def _dots(axes):
    return [line for line in axes.lines if line.get_marker() == "o" and line.get_linestyle() == "None"]


def test_the_front_shows_four_nats_and_the_budget(found):
    axes = plots.plot_front({"split": found}).axes[0]
    low, high = axes.get_xlim()
    assert high == 4.0 and -0.2 < low <= 0
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [1.0]
    legend = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert "budget, 1 nat" in legend
    wide = analysis.analyse(sweep(0), 6.0, n_boot=20)
    axes = plots.plot_front({"split": wide}).axes[0]
    assert axes.get_xlim()[1] == 12.0, "twice the budget, where that is more"


def test_a_front_goes_on_level_where_more_loss_gains_nothing(found):
    best = found.measured.spent.max()
    wide = analysis.analyse(sweep(0), best + 1, n_boot=20)
    axes = plots.plot_front({"split": wide}).axes[0]
    (line,) = [one for one in axes.lines if one.get_linewidth() == 1.6]
    assert line.get_xdata()[-1] == axes.get_xlim()[1] > best
    assert line.get_ydata()[-1] == line.get_ydata()[-2] == pytest.approx(found.measured.gain_dense.max())


def test_the_front_has_measured_points_of_its_own_side_only(found):
    (dots,) = _dots(plots.plot_front({"split": found}).axes[0])
    points, best = found.measured, found.recommendation
    side = np.sign(best.m)
    wanted = (points.m * side >= 0) & (points.gain >= 0) & (points.spent <= 4)
    np.testing.assert_array_equal(dots.get_xdata(), points.spent[wanted])
    np.testing.assert_array_equal(dots.get_ydata(), points.gain[wanted])
    other = (points.m * side < 0) & (points.gain >= 0) & (points.spent <= 4)
    assert (points.spent <= 4).sum() > wanted.sum() >= 3 or other.any()


def test_a_front_of_negative_strengths_has_their_points():
    turned = sweep(0)
    turned.loss_pos, turned.loss_neg = turned.loss_neg, turned.loss_pos
    found = analysis.analyse(turned, n_boot=20)
    assert found.recommendation.m < 0
    (dots,) = _dots(plots.plot_front({"split": found}).axes[0])
    assert len(dots.get_xdata()) >= 3
    assert set(dots.get_xdata()) <= set(found.measured.spent[found.measured.m <= 0])


def test_what_is_not_reliable_is_hollow_in_every_figure(found):
    m = np.linspace(-20, 20, 9)
    measured = MeasuredDecay(m, np.ones(9), np.linspace(1, 0.2, 9), np.linspace(0.5, 3, 9), None, None)
    for best in (found.recommendation, replace(found.recommendation, doubts=(analysis.Doubt("pairs", "Few."),))):
        one = replace(found, recommendation=best)
        figures = (
            plots.plot_curves({"split": one}),
            plots.plot_front({"split": one}),
            plots.plot_manifold(measured, best=best),
        )
        for figure in figures:
            stars = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "*"]
            assert stars and {star.get_fillstyle() for star in stars} == {"full" if best.reliable else "none"}
            legend = [text.get_text() for text in figure.legends[0].get_texts()]
            assert ("not reliable" in legend) != best.reliable


def test_a_star_past_the_axis_is_not_drawn_off_it(found):
    far = replace(found.recommendation, utility_drop=9.0)
    axes = plots.plot_front({"split": replace(found, recommendation=far)}).axes[0]
    assert not [line for line in axes.lines if line.get_marker() == "*"]
