"""Tables, figures and the report of a run: nothing lost, nothing undefined in silence, no network."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from sweeps import M, sweep

from easyedit_split import analysis
from easyedit_split.analysis import canvas, plots
from easyedit_split.analysis.drawn_lines import lines
from easyedit_split.errors import DataError, FitError


@pytest.fixture(scope="module")
def analyses():
    return {
        ("split", "vector"): analysis.analyse(sweep(0), n_boot=50),
        ("sft", "lora"): analysis.analyse(sweep(1, undefined=3, scale=60.0), n_boot=50),
    }


@pytest.fixture(scope="module")
def flat():
    table = sweep(2)
    table.loss_pos, table.loss_neg = (np.tile(loss[20], (41, 1)) for loss in (table.loss_pos, table.loss_neg))
    return analysis.analyse(table, n_boot=20)


def rows_of(table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


def test_comparison_has_a_row_a_method_and_form_and_a_column_a_score():
    table = analysis.comparison_table({("split", "lora"): {"acc": 0.5}, ("sft", "lora"): {"acc": 0.25, "flu": 1.5}})
    assert table.columns == ("Method", "Form", "acc", "flu")
    assert table.rows == (("split", "lora", 0.5, None), ("sft", "lora", 0.25, 1.5))
    assert table.csv() == "Method,Form,acc,flu\nsplit,lora,0.5,\nsft,lora,0.25,1.5\n"
    assert table.markdown().splitlines() == [
        "| Method | Form |  acc | flu |",
        "| ------ | ---- | ---: | --: |",
        "| split  | lora |  0.5 |   - |",
        "| sft    | lora | 0.25 | 1.5 |",
    ]
    with pytest.raises(DataError, match="no score"):
        analysis.comparison_table({})


def test_a_bar_in_a_label_does_not_break_a_row():
    assert "a\\|b" in analysis.comparison_table({"a|b": {"x": 1.0}}).markdown()
    assert "&lt;b&gt;" in analysis.comparison_table({"<b>": {"x": 1.0}}).html()


def test_fit_table_keeps_precision_and_counts_undefined_points(analyses):
    first, second = rows_of(analysis.fit_table(analyses))
    assert float(first["R2 preference"]) == analyses["split", "vector"].preference_fit.r2
    assert float(first["adj. R2 utility"]) == analyses["split", "vector"].utility_fit.adjusted_r2
    assert first["undefined utility"] == "0 of 820" and second["undefined utility"] == "123 of 820"


def test_a_curve_without_a_fit_is_not_a_number(flat):
    table = analysis.fit_table({"flat": flat})
    assert rows_of(table)[0]["R2 utility"] == "nan" and "n/a" in table.markdown()
    strengths = rows_of(analysis.strength_table({"flat": flat}))[0]
    assert strengths["m"] == "" and strengths["limit"] == "no fit" and strengths["reliable"] == "no"
    assert rows_of(analysis.budget_table({"flat": flat}))[0]["m at 0.5"] == ""
    assert analysis.parameter_table({"flat": flat}).rows == ()


def test_transfer_table():
    found = analysis.transfer(sweep(0), sweep(5, undefined=2))
    row = rows_of(analysis.transfer_table({"split": found}))[0]
    assert float(row["preference, train"]) == found.preference_train
    assert float(row["utility, test"]) == found.utility_test
    assert row["undefined utility, test"] == "82"


def test_strength_and_budget_tables_say_what_the_analysis_says(analyses):
    found = analyses["split", "vector"]
    strengths = rows_of(analysis.strength_table(analyses))[0]
    assert float(strengths["m"]) == found.recommendation.m
    assert (float(strengths["low"]), float(strengths["high"])) == found.recommendation.interval
    budgets = rows_of(analysis.budget_table(analyses))[0]
    assert float(budgets["gain at 2"]) == found.front[2].preference_gain
    assert float(budgets["loss at 4"]) == found.front[3].utility_drop
    # one thing has one number: the budget of 1 is in both tables
    assert (strengths["m"], strengths["gain"], strengths["loss"]) == tuple(
        budgets[f"{what} 1"] for what in ("m at", "gain at", "loss at")
    )
    parameters = rows_of(analysis.parameter_table(analyses))
    assert [row["curve"] for row in parameters] == ["preference", "utility"] * 2
    assert parameters[1]["alpha"] == "-" and "±" in parameters[0]["alpha"]


class Page(HTMLParser):
    """Collects sources and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_page_without_a_network(analyses, flat, tmp_path):
    m = np.array([0.0, 1.0])
    measured = analysis.MeasuredDecay(m, np.ones(2), np.array([1.0, 0.5]), np.array([0.5, 2.0]), None, None)
    report = analysis.write_report(
        tmp_path / "new" / "folder", {**analyses, ("none", "flat"): flat}, title="A <run> & more",
        context={"model": "demo <1>"}, transfers={("split", "vector"): analysis.transfer(sweep(0), sweep(3))},
        scores={("split", "vector"): {"accuracy": 0.9}}, manifolds={("split", "vector"): measured},
    )  # fmt: skip
    page = Page()
    page.feed(report.html.read_text(encoding="utf-8"))
    assert page.open == [] and "A <run> & more" in page.text and "demo <1>" in page.text
    # all methods, the front, three methods alone, the manifold; the reductions are the same
    pictures = [link for link in page.links if link != "data:,"]
    assert len(pictures) == 6 and all(link.startswith("data:image/svg+xml;base64,") for link in pictures)
    for words in ("123 of 820", "flat", "Table 2", "Table 5", "Table 6"):
        assert words in page.text and words in report.markdown.read_text(encoding="utf-8")
    assert {path.name for path in report.tables} == {
        "strength.csv", "comparison.csv", "fit.csv", "transfer.csv", "budgets.csv", "parameters.csv",
        "curves_split_vector.csv", "curves_sft_lora.csv", "curves_none_flat.csv",
    }  # fmt: skip
    curve = list(csv.DictReader(io.StringIO((tmp_path / "new/folder/tables/curves_split_vector.csv").read_text())))
    found = analyses["split", "vector"]
    assert [float(row["preference mean"]) for row in curve] == list(found.preference.mean)
    assert [float(row["utility fitted"]) for row in curve] == list(found.utility_fit.predict(M))
    assert all(path.exists() and path.stat().st_size > 1000 for path in report.figures)
    with pytest.raises(FitError, match="no analysis"):
        analysis.write_report(tmp_path, {})


def test_figures_show_every_method_and_every_point(analyses):
    named = {" ".join(key): found for key, found in analyses.items()}
    figure = plots.plot_curves(named, title="Both")
    upper, lower = figure.axes
    assert [len(axes.containers) for axes in (upper, lower)] == [2, 2]  # points with intervals, a method each
    solid = [line for line in upper.lines if line.get_linestyle() == "-" and line.get_linewidth() == 1.7]
    dashed = [line for line in lower.lines if line.get_linestyle() == "--"]
    assert len(solid) == len(dashed) == 2
    assert solid[0].get_color() != solid[1].get_color()
    found = analyses["split", "vector"]
    stars = [line for line in upper.lines if line.get_marker() == "*"]
    assert stars[0].get_xdata()[0] == found.recommendation.m
    assert "sft lora: 123 of 820 utility points undefined" in lower.get_xlabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum("use m =" in text for text in labels) == 1
    # the other has pairs without a utility: its star is hollow, and the legend says so
    assert [star.get_fillstyle() for star in stars] == ["full", "none"] and "not reliable" in labels
    single = plots.plot_curves({"split": found})
    shaded = [text.get_text() for text in single.legends[0].get_texts() if "region" in text.get_text()]
    assert shaded[0] == "linear region"


def test_figures_are_written_twice_with_the_same_bytes(analyses, tmp_path):
    found = {"split": analyses["split", "vector"]}
    first = canvas.save_figure(plots.plot_curves(found), tmp_path / "a")
    second = canvas.save_figure(plots.plot_curves(found), tmp_path / "b")
    assert [path.suffix for path in first] == [".png", ".svg"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_figures_of_curves_without_a_fit(analyses, flat):
    plots.plot_curves({"flat": flat})
    with pytest.raises(FitError, match="no front"):
        plots.plot_front({"flat": flat})
    assert len(plots.plot_front({"flat": flat, "split": analyses["split", "vector"]}).axes) == 1
    for plot in (plots.plot_curves, plots.plot_front):
        with pytest.raises(FitError, match="no analysis"):
            plot({})
    lost = replace(analyses["split", "vector"], recommendation=None, regions=None)
    plots.plot_curves({"lost": lost})


def test_more_methods_than_colours_stay_apart(analyses):
    found = analyses["split", "vector"]
    figure = plots.plot_curves({f"method {i}": found for i in range(7)})
    styles = {(c[0].get_color(), c[0].get_marker()) for c in figure.axes[0].containers}
    assert len(styles) == 7


CHECK = """
import sys
import easyedit_split.analysis as analysis
loaded = set(sys.modules)
assert not loaded & {"numpy", "scipy", "matplotlib", "torch"}, loaded
for name in analysis.__all__:
    getattr(analysis, name)
    assert not isinstance(getattr(analysis, name), type(sys)), name  # hidden by a module of its name
assert set(analysis.__all__) <= set(dir(analysis))
assert not {"torch", "transformers", "steer", "matplotlib", "pandas"} & set(sys.modules)
analysis.canvas.blank(3.0).subplots()
assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
try:
    analysis.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
"""


def test_names_load_on_first_use_and_never_torch():
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def few():
    """A sweep of too few strengths for the law."""
    table = sweep(0)
    table.factors, table.loss_pos, table.loss_neg = M[20:23], table.loss_pos[20:23], table.loss_neg[20:23]
    return table


def test_advice_says_which_strength_or_why_none(analyses):
    found = analyses["split", "vector"]
    best = found.recommendation
    assert found.advice.startswith(f"Use m = {best.m:.3g} [{best.interval[0]:.3g}, ")
    assert best.message in found.advice
    unknown = analysis.analyse(few(), n_boot=20)
    assert unknown.recommendation is None
    assert "sweep more strengths" in unknown.advice


def test_figures_of_an_earlier_report_do_not_stay(analyses, tmp_path):
    first = analysis.write_report(tmp_path, analyses)
    mine = tmp_path / "figures" / "mine.png"
    mine.write_bytes(b"kept")
    second = analysis.write_report(tmp_path, {"few": analysis.analyse(few(), n_boot=20)})
    assert len(second.figures) < len(first.figures)
    assert set((tmp_path / "figures").iterdir()) == {mine, *second.figures}


def test_the_law_is_drawn_only_where_the_points_bear_it_out(analyses):
    found = analyses["split", "vector"]
    curve, interval, fit = found.utility, found.utility_interval, found.utility_fit
    m, law, joined = lines(curve, interval, fit)
    assert np.isfinite(law).all() and np.isnan(joined).all()  # drawn from the law: all of it is borne out
    dent = np.where(np.arange(41) == 25, 5.0, 0.0)  # a point 5 nats off the law, far outside 1.5% of the range
    m, law, joined = lines(replace(curve, mean=curve.mean - dent), interval - dent[:, None], fit)
    inside = (m > 4) & (m < 6)
    assert np.isnan(law[inside]).all() and np.isfinite(law[(m <= 4) | (m >= 6)]).all()
    np.testing.assert_allclose(joined[m == 5], curve.mean[25] - 5)
    spiked = replace(fit, params={**fit.params, "m_plus": 0.3, "L_plus": 1e-3, "p_plus": 0.05})
    _, law, joined = lines(curve, interval, spiked)
    assert np.isnan(law[(m > 0) & (m < 1)]).all()
    _, law, joined = lines(curve, interval, None)
    assert np.isnan(law).all() and np.isfinite(joined).all()
