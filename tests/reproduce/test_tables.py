"""Means, spreads, marks, LaTeX and SPLIT's place, against values worked out by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from easyedit_split.analysis.pareto import BUDGETS, front_at_budgets
from easyedit_split.reproduce.aggregate import gain, grouped, over_seeds
from easyedit_split.reproduce.ranking import place_sentence, place_table
from easyedit_split.reproduce.strength import choose, choose_by_grid
from easyedit_split.reproduce.tables import score_tables, shown
from easyedit_split.sweeps.table import SweepTable


def result(method: str, form: str = "vector", seed: int = 0, concept: int | None = None, **more: Any) -> dict[str, Any]:
    level = more.pop("level", 1.0)
    return {
        "cell": {"dataset": "concepts", "concept_id": concept, "method": method, "form": form, "seed": seed},
        "scores": {"likelihood accuracy": 1.0},
        "judge": {"scores": {"concept": level, "instruct": 2.0, "fluency": 2.0, "harmonic mean": level}},
        "front": {"budgets": list(BUDGETS), "gain": [level] * 4, "draws": [[level] * 4, [level + 1] * 4]},
        "fits": {"preference": 0.99, "utility": 0.98, "preference, train": 0.9},
        "offline": {"perplexity": 3.0},
        "strength": {"m": 1.0, "rule": "r"},
        "at_strength": {"preference": 1.0, "utility": -1.0},
        **more,
    }


def test_concepts_are_averaged_within_a_seed_and_spread_is_over_seeds() -> None:
    results = [
        result("split", seed=0, concept=0, level=1.0), result("split", seed=0, concept=1, level=3.0),
        result("split", seed=1, concept=0, level=4.0), result("split", seed=1, concept=1, level=4.0),
    ]  # fmt: skip
    value = gain(results, 1.0)
    assert value is not None
    assert value.mean == 3.0  # (2 + 4) / 2
    assert value.spread == pytest.approx(np.sqrt(2))  # of 2 and 4
    assert value.seeds == 2
    # draws of the four cells average to 3 and 4: their 2.5% and 97.5% quantiles
    assert (value.low, value.high) == (pytest.approx(3.025), pytest.approx(3.975))


def test_missing_values_are_left_out_and_all_missing_is_none() -> None:
    results = [result("sft", seed=0), result("sft", seed=1)]
    results[1]["scores"]["x"] = 5.0
    assert over_seeds(results, lambda r: r["scores"].get("x")).mean == 5.0  # type: ignore[union-attr]
    assert over_seeds(results, lambda r: None) is None
    assert over_seeds([], lambda r: 1.0) is None


def test_rows_stand_vanilla_first_then_forms_with_split_last() -> None:
    names = [("split", "vector"), ("reps", "lora"), ("sft", "vector"), ("vanilla", ""), ("diffmean", "vector")]
    keys = list(grouped([result(m, f) for m, f in names]))
    assert [k[1:] for k in keys] == [
        ("vanilla", ""), ("diffmean", "vector"), ("sft", "vector"), ("split", "vector"), ("reps", "lora"),
    ]  # fmt: skip


def test_what_a_method_was_trained_with_stands_beside_its_scores() -> None:
    same = {"pairs": 64, "epochs": 2, "updates": 32, "lr": 0.002}
    found = grouped([result("sft", training=same), result("split", seed=0, training=same | {"updates": 64})])
    rows = {t.name: t for t in score_tables(found, "demo")}["training"].markdown().splitlines()
    assert [cell.strip() for cell in rows[2].split("|")[3:7]] == ["64", "2", "32", "0.002"]
    assert rows[3].split("|")[5].strip() == "64"


def test_the_papers_r2_stand_beside_fits_and_not_beside_nats() -> None:
    one = result("sft", fits={"preference": 0.9, "utility": 0.8}, at_strength={"preference": 8.0, "utility": -50.0})
    one["cell"]["dataset"] = "psychopathy"
    tables = {t.name: t.markdown() for t in score_tables(grouped([one]), "smollm2-135m-instruct")}
    assert "(paper" in tables["table5"] and "(paper" not in tables["strength"]
    assert "8.00" in tables["strength"] and "-50.00" in tables["strength"]


def scores() -> dict[str, Any]:
    levels = {"sft": 1.0, "reps": 1.5, "split": 2.0}
    found = grouped([result(m, level=x) for m, x in levels.items()])
    return {t.name: t for t in score_tables(found, "demo")}


def test_best_and_second_are_marked_in_each_format() -> None:
    table = scores()["table3_front"]
    text = table.markdown()
    assert "**2.00 [2.02, 2.98]**" in text and "*1.50 [1.52, 2.48]*" in text
    tex = table.latex()
    assert r"\textbf{2.00" in tex and r"\underline{1.50" in tex and r"\toprule" in tex
    assert tex.count("&") == 4 * (len(table.columns) + 1)
    page = table.html()
    assert "<b>2.00" in page and "<u>1.50" in page


def test_equal_values_share_their_place() -> None:
    found = grouped([result(m, level=2.0) for m in ("sft", "split")])
    table = {t.name: t for t in score_tables(found, "demo")}["table3"]
    assert table.markdown().count("**2.00**") == 2 * 4


def test_fit_tables_have_their_own_columns_and_no_vanilla() -> None:
    fits = {"preference": 0.99, "preference, train": 0.9, "preference, test": -0.5, "utility, test": 0.25}
    found = grouped([result(m, fits=fits) for m in ("sft", "split")] + [result("vanilla", "")])
    tables = {t.name: t for t in score_tables(found, "demo")}
    for name, first in (("table2", 0.9), ("table5", 0.99), ("table6", -0.5)):
        assert set(tables[name].rows) == {("sft", "vector"), ("split", "vector")}
        values = tables[name].rows["sft", "vector"]
        assert values[0] is not None and values[0].mean == first


def test_csv_has_full_precision_and_empty_cells_for_what_is_missing() -> None:
    found = grouped([result("sft", level=1 / 3), {**result("reps"), "judge": {"scores": {}}}])
    rows = list(csv.DictReader(io.StringIO({t.name: t for t in score_tables(found, "demo")}["table3"].csv())))
    assert float(rows[0]["concepts concept mean"]) == 1 / 3
    assert rows[1]["concepts concept mean"] == ""
    assert rows[0]["concepts concept paper, Gemma-2-9B"] == ""


def test_numbers_of_the_paper_stand_beside_ours() -> None:
    cell = {"dataset": "axbench", "concept_id": None, "method": "split", "form": "lora", "seed": 0}
    found = grouped([{**result("split"), "cell": cell}])
    for model, text in (
        ("gemma-2-9b-it", "1.00 (paper 1.77)"),
        ("smollm2-135m-instruct", "1.00 (paper, Gemma-2-9B 1.77; paper, Qwen2.5-7B 1.74)"),
    ):
        table = {t.name: t for t in score_tables(found, model)}["table3"]
        assert text in table.markdown()
    (row,) = csv.DictReader(io.StringIO(table.csv()))
    assert (row["axbench concept paper, Gemma-2-9B"], row["axbench concept paper, Qwen2.5-7B"]) == ("1.775", "1.7375")


def test_special_letters_do_not_break_latex_or_html() -> None:
    found = grouped([result("a_b&c<d>")])
    table = score_tables(found, "demo")[1]
    assert r"a\_b\&c<d>" in table.latex()
    assert "a_b&amp;c&lt;d&gt;" in table.html()


def test_shown() -> None:
    assert shown(None) == "-"


def test_place_counts_firsts_and_ties_and_pairs_the_draws() -> None:
    found = grouped([result("sft", level=1.0), result("reps", level=2.0), result("split", level=2.0)])
    table = place_table(found)
    assert [row[6] for row in table.rows] == ["tie"] * 5  # four budgets and the harmonic mean
    assert table.rows[0][7] == 0.0  # never strictly ahead of RePS
    ahead = place_table(grouped([result("sft"), result("reps"), result("split", level=1.5)]))
    assert [row[6] for row in ahead.rows] == ["split"] * 5
    assert ahead.rows[0][7] == 1.0
    assert "4 of 4 cells on the front" in place_sentence(ahead)
    assert place_sentence(place_table({})) == ""


def sweep_table(preference: Any, utility: Any, n: int = 6) -> SweepTable:
    """Losses whose log-odds are exactly these, the same for every example, at m = 0, 1, 2, …

    With u the utility log-odds, log P = -log(1 + e^-u); with p the preference, the matching answer's loss is
    -log P + log(1 + e^-p), and the other's is p more.
    """
    p, u = np.array(preference), np.array(utility)
    pos = np.logaddexp(0, -u) + np.logaddexp(0, -p)
    factors = np.arange(len(p), dtype=float)
    ones = np.ones((1, n))
    return SweepTable(factors, pos[:, None] * ones, (pos + p)[:, None] * ones, "sum", np.ones(n), np.ones(n))


def test_front_by_hand() -> None:
    # gain 1 a step, loss 1 a step: linear, so the gain within a budget is the budget, up to the end of the sweep
    table = sweep_table([0, 1, 2, 3], [5, 4, 3, 2])
    found = front_at_budgets(table, n_boot=3)
    assert found["gain"] == pytest.approx([0.5, 1, 2, 3], abs=1e-2)  # 400 points a step: off by at most 1/400
    assert np.array(found["draws"]) == pytest.approx(np.tile(found["gain"], (3, 1)), abs=1e-3)


def test_the_strength_is_the_best_that_was_measured_within_the_budget() -> None:
    table = sweep_table([0, 3, 1, 4, 1, 9], [5, 4.6, 4.5, 4.2, 3.9, 0])
    found = choose(table, 1.0)
    assert found.m == 3.0
    assert choose(sweep_table([0, -1, -2], [5, 5, 5]), 1.0).m == 0.0
    assert "6 held-out" in found.rule and "best swept m" in found.rule


def test_strength_by_grid_takes_the_middle_of_the_best() -> None:
    m = np.arange(-20.0, 21.0)
    table = replace(sweep_table(4 * m / (1 + (m / 9) ** 2), 6 - 0.02 * m**2), factors=m)
    asked: dict[float, float] = {}

    def score(strength: float) -> float:
        asked[strength] = 2.0 if 4 < strength < 11 else 1.0
        return asked[strength]

    found = choose_by_grid(table, score, 1.0)
    best = [s for s, value in asked.items() if value == 2.0]
    assert len(asked) >= 5 and len(best) >= 2
    assert found.m == best[len(best) // 2]
    assert "best score of texts for 6 held-out" in found.rule


def test_strength_by_grid_without_a_judge_is_the_recommended_one() -> None:
    table = sweep_table([0, 3, 1, 4, 1, 9], [5, 4.6, 4.5, 4.2, 3.9, 0])
    assert choose_by_grid(table, lambda m: None, 1.0) == choose(table, 1.0)
