"""Advice is true of what was measured: each test is a sentence that was false."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from easyedit_split import analysis
from easyedit_split.analysis.logodds import beside
from easyedit_split.analysis.pipeline import strength_past_the_end, strength_to_measure
from easyedit_split.analysis.region import measured_regions
from easyedit_split.analysis.reliability import doubts_of_fits, doubts_of_parameters
from easyedit_split.errors import DataError, FitError


def losses(pref: np.ndarray, util: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The losses that have these log-odds."""
    log_p = -np.logaddexp(0.0, -util)
    return np.logaddexp(0.0, -pref) - log_p, np.logaddexp(0.0, pref) - log_p


def sweep(m, preference, utility, n: int = 60, seed: int = 0, spread: float = 0.1, header=None):
    """A sweep of n pairs about two curves; each pair has an offset and a size of its own."""
    m, rng = np.asarray(m, float), np.random.default_rng(seed)
    size = 1 + spread * rng.normal(size=n)
    pref = np.array([preference(x) for x in m])[:, None] * size + rng.normal(size=n)
    util = np.array([utility(x) for x in m])[:, None] * size + rng.normal(size=n) - 15
    pos, neg = losses(pref, util)
    return SimpleNamespace(factors=m, loss_pos=pos, loss_neg=neg, reduction="sum", header=header or {})


def rising(x: float) -> float:
    return 6 * x / (1 + x**2 / 60) ** 0.5


def falling(x: float) -> float:
    return -x * x / 4


GRID = np.linspace(-6, 6, 25)


def names(found) -> set[str]:
    return {doubt.name for doubt in found.recommendation.doubts}


def test_the_advised_strength_was_swept_and_its_numbers_are_the_measured_ones():
    table = sweep(GRID, rising, falling)
    found = analysis.analyse(table)
    best, utility, preference = found.recommendation, found.utility.mean, found.preference.mean
    at, zero = int(np.flatnonzero(best.m == GRID)[0]), 12
    assert best.utility_drop == pytest.approx(utility[zero] - utility[at], abs=1e-9) and best.utility_drop <= 1
    assert best.preference_gain == pytest.approx(preference[at] - preference[zero], abs=1e-9)
    assert utility[zero] - utility[at + 1] > 1  # the next one costs more than the budget
    assert best.reliable and found.advice.startswith(f"Use m = {best.m:.3g} [")
    assert (
        f"a loss of utility of {best.utility_drop:.2f} ± {best.drop_error:.2f} nats (budget 1), measured"
        in found.advice
    )
    # the interval of the best strength holds where the budget is spent: x^2 / 4 = 1
    assert best.interval[0] <= 2.0 <= best.interval[1]


def test_a_law_that_overspends_between_two_strengths_is_not_believed():
    """Utility falls by 3 nats in a step between two strengths: the law smears it over both, and overspends."""

    def stepped(x: float) -> float:
        return falling(x) * 0.2 - 3.0 / (1 + np.exp(-(x - 2.1) / 0.02))

    found = analysis.analyse(sweep(GRID, rising, stepped))
    law = analysis.recommend_strength(found.preference_fit, found.utility_fit, 1.0)
    assert -stepped(law.m) > 1.5  # what was said before
    assert -stepped(found.recommendation.m) <= 1.1


def test_a_peak_of_utility_that_no_strength_measures_is_not_said():
    """A curve with a kink at 0 whose law peaks beside it: no measured strength is above 0."""
    found = analysis.analyse(sweep(GRID, rising, lambda x: -4 * abs(x) ** 1.2))
    assert "utility is higher" not in found.advice and "counted from" not in found.advice
    assert "highest" not in found.advice
    # one that is measured is said, with its interval
    found = analysis.analyse(sweep(GRID, rising, lambda x: -((x + 2) ** 2) / 4))
    assert "Elsewhere utility is higher: at m = -2 it measures +1" in found.advice


def test_a_loss_is_counted_from_the_peak_on_the_way():
    """Utility at m = 0 lies 13 nats below its peak: counted from 0 the budget would never bind."""
    found = analysis.analyse(sweep(GRID, rising, lambda x: 13 * np.exp(-((x - 2) ** 2) / 4)))
    best, utility = found.recommendation, found.utility.mean
    assert 2 <= best.m <= 3 and best.limit == "budget"
    assert best.utility_drop == pytest.approx(utility.max() - utility[best.m == GRID][0], abs=1e-9)
    assert "The loss is counted from m = 2, where utility measures +8" in found.advice  # 13 (1 - 1/e)
    assert found.measured_at(best.m)[1] == pytest.approx(best.utility_drop)


def test_two_tables_give_one_number_for_one_thing():
    found = {"a": analysis.analyse(sweep(GRID, rising, falling))}
    strength, budgets = (table(found) for table in (analysis.strength_table, analysis.budget_table))
    one, other = (
        dict(zip(strength.columns, strength.rows[0], strict=True)),
        dict(zip(budgets.columns, budgets.rows[0], strict=True)),
    )
    assert (one["m"], one["gain"], one["loss"]) == (other["m at 1"], other["gain at 1"], other["loss at 1"])


# Conditions, each with a sentence of its own


def test_the_end_of_the_sweep_is_not_relied_on():
    found = analysis.analyse(sweep(np.linspace(-2, 2, 25), rising, lambda x: -x * x / 5))
    assert names(found) == {"edge"} and "sweep further" in found.advice
    assert found.advice.startswith("Not reliable: m = 2 [")
    near = analysis.analyse(sweep(np.linspace(-2.05, 2.05, 42), rising, falling))  # 2.05 costs 1.05
    assert "edge" in names(near) and near.recommendation.m < 2.05


def test_few_strengths_for_the_parameters_are_not_relied_on():
    found = analysis.analyse(sweep(np.linspace(-4, 4, 9), rising, falling))
    assert "strengths" in names(found)
    assert "9 strengths are few for the 8 free parameters of the preference law: sweep 3 more." in found.advice


def test_a_law_upside_down_is_not_relied_on():
    found = analysis.analyse(sweep(GRID, rising, lambda x: 8 - 8 / (1 + x * x)))
    assert found.utility_fit.params["beta"] < 0 and "identified" in names(found)


def test_parameters_at_a_bound_are_not_relied_on_where_the_law_is_needed():
    steep = sweep(np.linspace(-6, 6, 13), rising, lambda x: -2.0 * x * x)
    found = analysis.analyse(steep)
    bound = [name for name in found.utility_fit.at_bound if name.endswith("plus")]
    lost = [name for name, error in found.utility_fit.stderr.items() if not np.isfinite(error)]
    assert bound or lost
    assert "identified" in names(found) and (bound or lost)[0] in found.advice


def test_a_fall_that_nothing_was_measured_in_is_not_relied_on():
    found = analysis.analyse(sweep(np.linspace(-6, 6, 25), rising, lambda x: -6.0 * min(1.0, abs(x) / 0.3) - abs(x)))
    assert "gap" in names(found) and not found.recommendation.reliable
    assert "nothing was measured in between: sweep there" in found.advice
    # nor is it said that no strength helps, where one between 0 and the next may
    found = analysis.analyse(sweep(np.linspace(-12, 12, 13), rising, lambda x: -0.3 * x * x))
    assert found.recommendation.m == 0 and "gap" in names(found)


def test_a_misfit_larger_than_the_budget_is_not_relied_on():
    wavy = sweep(GRID, rising, lambda x: -0.9 * x * x + 2.5 * np.sin(4 * x))
    found = analysis.analyse(wavy)
    assert found.utility_fit.rmse > 1 and "rmse" in names(found)
    assert found.advice.startswith("Not reliable: ") and "more than the budget" in found.advice


def test_few_pairs_and_a_loss_that_may_be_much_more_are_not_relied_on():
    assert "pairs" in names(analysis.analyse(sweep(GRID, rising, falling, n=12)))
    rough = sweep(GRID, rising, falling, n=25, spread=2.5)
    found = analysis.analyse(rough)
    assert found.recommendation.drop_interval[1] > 1.5 and "budget" in names(found)
    assert "measure more pairs" in found.advice


def test_an_interval_over_both_signs_is_not_relied_on():
    table, slope = sweep(GRID, lambda x: 0.5 * abs(x), falling), np.random.default_rng(0).normal(size=60)
    pref = table.loss_neg - table.loss_pos + GRID[:, None] * (slope - slope.mean() + 0.02)
    util = np.array([falling(x) for x in GRID])[:, None] - 15 + np.zeros(60)
    table.loss_pos, table.loss_neg = losses(pref, util)
    found = analysis.analyse(table)
    low, high = found.recommendation.interval
    assert low < 0 < high and "sign" in names(found)


def test_a_gain_that_may_be_none_is_not_relied_on():
    found = analysis.analyse(sweep(GRID, lambda x: 0.05 * x, falling, spread=12.0))
    assert "gain" in names(found) or found.recommendation.m == 0


def test_a_strength_far_outside_the_trained_ones_is_not_relied_on():
    def header(factors):
        return {"artifact": {"origin": {"config": {"steering_factors": factors}}}}

    far = analysis.analyse(sweep(GRID, rising, falling, header=header([0.2, 0.4])))
    assert names(far) == {"trained"} and "m = 1.5 is 3.8 times the largest strength trained on, 0.4." in far.advice
    assert analysis.analyse(sweep(GRID, rising, falling, header=header([1.0, 2.0]))).recommendation.reliable
    assert analysis.analyse(sweep(GRID, rising, falling, header={"artifact": "broken"})).recommendation.reliable


def test_without_zero_in_the_sweep_nothing_is_relied_on():
    found = analysis.analyse(sweep(np.linspace(0.5, 6, 20), rising, falling))
    assert "zero" in names(found) and "sweep 0 as well" in found.advice and "measured there" not in found.advice
    assert found.recommendation.m in found.preference.m
    table = sweep(GRID, rising, falling)
    table.loss_pos[12] = table.loss_neg[12] = 0.1  # P_p + P_n > 1, as with means
    table.reduction = "mean"
    found = analysis.analyse(table)
    assert "Utility is undefined at m = 0" in found.advice and "sweep 0" not in found.advice
    assert "costs" not in found.advice and "budget" not in found.advice
    assert analysis.strength_table({"a": found}).rows[0][4] is None  # no gain from a value nobody measured


def test_a_strength_of_higher_preference_without_a_utility_is_said():
    table = sweep(GRID, rising, lambda x: -0.1 * x * x * (x > 0))
    table.loss_pos[20:] = np.nan
    found = analysis.analyse(table)
    assert "undefined" in names(found) and "At m = 4 a curve is undefined" in found.advice


def test_other_pairs_at_the_two_ends_of_a_loss_are_said():
    table = sweep(GRID, rising, falling)
    table.loss_pos[12, :9] = np.nan
    found = analysis.analyse(table)
    assert "undefined" in names(found) and "undefined for 9 of 60 pairs" in found.advice


def test_without_any_gain_the_model_is_left_as_it_is():
    found = analysis.analyse(sweep(GRID, lambda x: -abs(x), falling))
    assert found.recommendation.m == 0 and found.recommendation.limit == "none"
    assert "No swept strength raises preference within the budget." in found.advice


# Measuring what the advice needs


def refined(preference, utility, m, budget: float = 1.0):
    table, asked = sweep(m, preference, utility), []
    while (more := strength_to_measure(table, budget)) is not None and len(asked) < 12:
        asked.append(more)
        table = sweep(np.append(table.factors, more), preference, utility)
    return analysis.analyse(table, budget), asked


def test_the_strength_that_is_asked_for_spends_the_budget_and_no_more():
    found, asked = refined(rising, falling, np.linspace(-6, 6, 13))
    best = found.recommendation
    assert 1 <= len(asked) <= 4 and best.m in asked and best.reliable
    assert 0.9 <= best.utility_drop <= 1 and best.m == pytest.approx(2.0, abs=0.15)
    assert all(m == float(f"{m:.3g}") for m in asked)  # said with three digits, measured at three digits


def test_a_step_is_found_by_halving():
    def stepped(x: float) -> float:
        return -9.0 / (1 + np.exp(np.clip(-(x - 1.3) / 1e-3, -99, 99)))

    found, asked = refined(rising, stepped, np.linspace(-6, 6, 13))
    assert len(asked) <= 8 and 1.2 < found.recommendation.m < 1.3
    assert found.recommendation.utility_drop < 0.1


def test_what_was_measured_already_is_not_asked_for():
    assert strength_to_measure(sweep(np.linspace(0.5, 6, 20), rising, falling)) == 0  # all is counted from there
    table = sweep(GRID, rising, falling)
    table.loss_pos[12] = np.nan
    assert strength_to_measure(table) is None
    found, asked = refined(rising, lambda x: -x * x / 400, GRID)
    assert asked == [] and found.recommendation.limit == "sweep"
    with pytest.raises(analysis.fit.FitError, match="max_utility_drop"):
        strength_to_measure(sweep(GRID, rising, falling), -1.0)


# The joined curve


def test_the_joined_curve_never_leaves_its_points():
    rng = np.random.default_rng(0)
    at = np.sort(rng.uniform(-5, 5, 15))
    level = rng.normal(size=15).cumsum()
    m = np.linspace(at[0], at[-1], 999)
    joined = analysis.measured.cubic(at, level, m)
    right = np.searchsorted(at, m).clip(1, 14)
    ends = np.sort([level[right - 1], level[right]], axis=0)
    assert (joined >= ends[0] - 1e-9).all() and (joined <= ends[1] + 1e-9).all()
    np.testing.assert_allclose(analysis.measured.cubic(at, level, at), level)


def test_the_joined_curve_is_the_shape_preserving_cubic():
    from scipy.interpolate import PchipInterpolator

    rng = np.random.default_rng(1)
    at = np.sort(rng.uniform(-5, 5, 12))
    level = rng.normal(size=12)
    m = np.linspace(at[1], at[-2], 333)  # the two differ in the slope at their ends alone
    np.testing.assert_allclose(analysis.measured.cubic(at, level, m), PchipInterpolator(at, level)(m), atol=1e-12)


# Regions as measured


def test_regions_are_read_off_points():
    table = sweep(np.linspace(-20, 20, 41), lambda x: 10 * np.clip(x, -5, 5), falling)
    found = measured_regions(analysis.curves(table)[0])
    # a line to 5 and flat from there; a chord of 6 still follows it within a tenth
    assert found.plus.linear_end in (5.0, 6.0) and found.plus.convergence_start in (5.0, 6.0)
    assert found.minus.linear_end == -found.plus.linear_end


def test_regions_without_points_are_not_said():
    coarse = sweep(np.linspace(-6, 6, 7), lambda x: np.sign(x), falling)
    assert measured_regions(analysis.curves(coarse)[0]) is None
    found = analysis.analyse(sweep(GRID, lambda x: 5 * np.tanh(20 * x), falling))
    assert found.regions is None


def undefined_at(strengths, preference: float = 9.0, grid=GRID):
    """A sweep whose utility does not exist at some strengths, where preference is what is said."""
    table = sweep(grid, rising, falling)
    pos, neg = table.loss_pos / 5, table.loss_neg / 5
    rows = np.isin(grid, strengths)
    pos[rows], neg[rows] = 0.0, preference
    return SimpleNamespace(factors=grid, loss_pos=pos, loss_neg=neg, reduction="mean", header={})


def test_strengths_where_utility_is_undefined_are_not_spoken_for():
    inner = analysis.analyse(undefined_at([1.5]), 0.4)
    assert inner.preference.mean[inner.preference.m == 1.5] > inner.recommendation.preference
    assert "No other swept strength has" not in inner.advice
    ends = analysis.analyse(undefined_at([4.5, 5.0, 5.5, 6.0], 1.0), 1000.0)
    assert ends.recommendation.m == 4.0 and ends.recommendation.limit == "sweep"
    assert ends.recommendation.within_budget == "some" and "Every swept strength" not in ends.advice
    assert "the sweep from -6 to 4" not in ends.advice and "the end of the sweep, m = 4" not in ends.advice
    assert "at the end of the strengths from -6 to 4 where both curves are defined." in ends.advice
    assert "may lie past m = 4, past which a curve is undefined." in ends.advice


def test_pairs_are_counted_where_both_curves_exist():
    table = sweep(GRID, rising, falling)
    table.loss_pos[GRID == 2.0, :7] = np.nan
    found = analysis.analyse(table, 1.0)
    assert found.recommendation.m == 2.0 and "measured there on 53 pairs." in found.advice
    one = analysis.analyse(sweep(GRID, rising, falling, n=1), 1.0)
    assert "measured there on 1 pair." in one.advice and "1 pair is too few" in one.advice


def test_a_cost_a_hair_past_the_budget_is_not_rounded_to_it():
    m = np.linspace(-10, 10, 21)
    util = np.array([-4 - (1.00001 if x >= 5 else abs(x) / 50) for x in m])
    pos, neg = losses(np.array([[rising(x)] * 60 for x in m]), np.repeat(util[:, None], 60, axis=1))
    table = SimpleNamespace(factors=m, loss_pos=pos, loss_neg=neg, reduction="sum", header={})
    assert "m = 5, costs 1.00001 nats, more than the budget." in analysis.analyse(table, 1.0).advice


def test_of_equal_strengths_the_nearest_is_used_although_rounding_sets_them_apart():
    table = sweep(GRID, lambda x: 3.0 * (x > 1.2), lambda x: -x * x / 100)
    found = analysis.analyse(table, 0.1)
    assert np.ptp(found.preference.mean[GRID > 1.2]) < 1e-12
    assert found.recommendation.m == 1.5 and "higher preference, m" not in found.advice


def test_zero_has_no_sign():
    table = sweep(np.where(GRID == 0, -0.0, GRID), lambda x: -abs(x), falling)
    assert "m = 0 " in analysis.analyse(table).advice


@pytest.mark.parametrize("scale", [1e299, 1e-300])
def test_strengths_whose_squares_are_no_numbers_are_refused_in_a_sentence(scale: float):
    table = sweep(GRID, rising, falling)
    table.factors = GRID * scale
    with pytest.raises(DataError, match="must lie between 1e-100 and 1e\\+100"):
        analysis.analyse(table)
    with pytest.raises(DataError, match="must lie between"):
        analysis.fit_utility(table.factors, falling(GRID))


def test_a_seed_below_zero_is_one_sentence():
    with pytest.raises(FitError, match="seed is -1; give a whole number of 0 or more"):
        analysis.analyse(sweep(GRID, rising, falling), seed=-1)


def test_broken_losses_are_one_sentence_with_a_remedy_that_helps():
    table = sweep(GRID, rising, falling)
    table.loss_pos[0, 0] = 1e200
    with pytest.raises(DataError, match="1e\\+200 nats, more than any model gives; measure the sweep again"):
        analysis.analyse(table)
    table.loss_pos[:], table.loss_neg[:] = 0.0, 0.0
    with pytest.raises(FitError, match="add up to 1 or more\\); measure the sweep again"):
        analysis.analyse(table)


def test_the_best_of_many_gains_that_are_none_is_not_called_a_gain():
    """Twenty pairs, each strength's gain 0 with noise of its own: the best of 24 looks like a gain."""

    def noise(seed: int):
        rng = np.random.default_rng(seed)
        pref, util = rng.normal(size=(25, 20)), rng.normal(size=(25, 20)) * 0.1 - 15
        pos, neg = losses(pref, util)
        return SimpleNamespace(factors=GRID, loss_pos=pos, loss_neg=neg, reduction="sum", header={})

    found = [analysis.analyse(noise(seed), n_boot=200) for seed in range(40)]
    alone = [np.percentile(f.measured.gain_draws[:, f.measured.m == f.recommendation.m], 2.5) > 0 for f in found]
    assert sum(alone) >= 10  # by an interval of the strength alone
    called = [f.recommendation.gain_interval[0] > 0 for f in found]
    assert sum(called) <= 4  # 5 in 100 are expected: 20 and 24 of 400 seeds with 60 and 20 pairs


def test_an_interval_of_the_gain_that_holds_for_all_strengths_is_not_much_wider_where_they_move_together():
    found = analysis.analyse(sweep(GRID, rising, falling))
    at, best = found.measured.m == found.recommendation.m, found.recommendation
    low, high = np.percentile(found.measured.gain_draws[:, at], [2.5, 97.5])
    assert high - low <= best.gain_interval[1] - best.gain_interval[0] <= 1.3 * (high - low)


def test_a_sweep_that_ended_too_soon_is_asked_further_until_it_holds_the_best():
    def up_and_down(x: float) -> float:
        return rising(x) if abs(x) <= 9 else rising(9.0) - abs(x)

    grid, asked = np.linspace(-6, 6, 25), []
    while (m := strength_past_the_end(sweep(grid, up_and_down, lambda x: -x * x / 400))) is not None:
        asked.append(m)
        grid = np.append(grid, m)
    assert asked == [9.0, 13.5]
    assert strength_past_the_end(sweep(GRID, rising, falling)) is None  # the budget ends it before the sweep does
    assert strength_past_the_end(sweep(GRID, lambda x: -rising(x), lambda x: -0.01 * x * x)) == -9.0


def test_the_end_at_0_of_a_one_sided_sweep_is_not_relied_on():
    found = analysis.analyse(sweep(np.linspace(0, 6, 25), lambda x: -rising(x), falling))
    assert found.recommendation.m == 0 and "edge" in names(found)
    assert "No negative strength was swept, so a better one may lie there: sweep some." in found.advice


@pytest.mark.parametrize(
    ("different", "said"),
    [
        (1, "1 different pair is too few"),
        (5, "5 different pairs are too few"),
        (30, "Of 100 pairs only 30 are different"),
    ],
)
def test_repeated_pairs_are_not_counted_as_others(different: int, said: str):
    table = sweep(GRID, rising, falling, n=different)
    for name in ("loss_pos", "loss_neg"):
        setattr(table, name, np.tile(getattr(table, name), -(-100 // different))[:, :100])
    found = analysis.analyse(table)
    assert "pairs" in names(found) and said in found.advice


def test_the_pairs_that_were_trained_on_are_not_relied_on():
    header = {"pairs_sha256": "abc", "artifact": {"origin": {"pairs_sha256": "abc"}}}
    found = analysis.analyse(sweep(GRID, rising, falling, header=header))
    assert names(found) == {"own pairs"} and "sweep test pairs" in found.advice
    header["pairs_sha256"] = "another"
    assert analysis.analyse(sweep(GRID, rising, falling, header=header)).recommendation.reliable


def test_strengths_of_a_scaled_change_are_in_its_new_unit():
    def header(scaled):
        return {"artifact": {"origin": {"config": {"steering_factors": [3.0]}, "scaled": scaled}}}

    far = analysis.analyse(sweep(GRID, rising, falling, header=header(10)))  # 3 was trained, which is 0.3 now
    assert names(far) == {"trained"} and "5 times the largest strength trained on, 0.3." in far.advice
    assert analysis.analyse(sweep(GRID, rising, falling, header=header(0.1))).recommendation.reliable


def test_utility_is_said_to_rise_only_where_a_point_lies_above():
    fits = [analysis.analyse(sweep(GRID, rising, lambda x, s=s: s * (1 - 1 / (1 + x * x)))).utility_fit for s in (8, 8)]
    assert fits[0].params["beta"] < 0
    assert any("utility rises" in doubt.sentence for doubt in doubts_of_fits((fits[1], fits[0])))
    falls = replace(fits[0], residual=-2 * fits[0].predict(fits[0].m) + fits[0].predict(np.zeros(1)))
    said = [doubt.sentence for doubt in doubts_of_fits((fits[1], falls))]
    assert not any("utility rises" in sentence for sentence in said)
    assert any("its parameters mean nothing" in d.sentence for d in doubts_of_parameters((fits[1], falls), 1.0, 1.0))


@pytest.mark.parametrize(
    ("value", "bound", "text"),
    [
        (0.948, 1.0, "0.95"),
        (0.996, 0.9965, "0.996"),
        (1.00001, 1.0, "1.00001"),
        (19.998, 20.0, "19.998"),
        (20, 20, "20.00"),
    ],
)
def test_a_number_beside_a_bound_compares_as_it_does(value: float, bound: float, text: str):
    assert beside(value, bound) == text


def test_every_star_is_in_the_picture():
    from easyedit_split.analysis.plots import plot_curves

    one_sided = [analysis.analyse(sweep(np.linspace(0, 6, 25), rising, falling, seed=seed)) for seed in (0, 1)]
    other = analysis.analyse(sweep(GRID, lambda x: -rising(x), falling))
    assert other.recommendation.m < 0
    axes = plot_curves({"a": one_sided[0], "b": one_sided[1], "c": other}).axes[0]
    assert axes.get_xlim()[0] <= other.recommendation.interval[0]
