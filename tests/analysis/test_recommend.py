"""Regions, the recommended strength, the front, the bootstrap, transfer and the whole analysis of a sweep.

The curves have closed forms: with centres at 0 and beta = 0, preference is alpha m (1 + m^2/L)^-p and utility is
beta (1 + m^2/L)^-p + b.
"""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from easyedit_split import analysis
from easyedit_split.analysis import bootstrap, fitted_curves
from easyedit_split.analysis.predicted import GRID
from easyedit_split.errors import FitError

M = np.linspace(-20.0, 20.0, 41)
STEP = 40 / (GRID - 1)


def preference(m, power: float, scale: float = 30.0, alpha: float = 0.5):
    return fitted_curves.curve("preference", m, [alpha, 0.0, 1.0, 0.0, scale, power, 0.0, scale, power])


def utility(m, power: float = 1.0, scale: float = 100.0, size: float = 10.0):
    return fitted_curves.curve("utility", m, [size, -12.0, 0.0, scale, power, 0.0, scale, power])


def fits(power: float = 0.5, m: np.ndarray = M):
    return analysis.fit_preference(m, preference(m, power)), analysis.fit_utility(m, utility(m))


def losses(pref: np.ndarray, util: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The losses that have these log-odds: log P = -log(1 + e^-util), and P splits as the preference says."""
    log_p = -np.logaddexp(0.0, -util)
    return np.logaddexp(0.0, -pref) - log_p, np.logaddexp(0.0, pref) - log_p


def sweep(n: int = 60, seed: int = 0, spread: float = 0.3, noise: float = 0.02, m: np.ndarray = M):
    rng = np.random.default_rng(seed)
    size = 1 + spread * rng.normal(size=n)
    pref = preference(m, 1.0)[:, None] * size + rng.normal(size=n) + noise * rng.normal(size=(len(m), n))
    util = utility(m)[:, None] * (2 - size) + rng.normal(size=n) + noise * rng.normal(size=(len(m), n))
    pos, neg = losses(pref, util)
    return SimpleNamespace(factors=m, loss_pos=pos, loss_neg=neg, reduction="sum", header={"form": "vector"})


# Regions


def linear_end(function, tolerance: float, edge: float) -> float:
    """The largest e at which the curve stays near its chord from 0, by brute force on a grid of its own."""
    ends = np.arange(0.02, edge, 0.02)
    good = []
    for end in ends:
        m = np.linspace(0, end, 200)
        rise = function(m) - function(np.zeros(1))
        if (np.abs(rise - rise[-1] * m / end) <= tolerance * abs(rise[-1])).all():
            good.append(end)
    return max(good)


def test_regions_by_hand():
    # p = 1/2: f' = a (1 + m^2/L)^-3/2 is a tenth of its value at 0 where 1 + m^2/L = 10^(2/3)
    found = analysis.regions(fits(0.5)[0])
    linear, converged = linear_end(lambda m: preference(m, 0.5), 0.1, 20), np.sqrt(30 * (10 ** (2 / 3) - 1))
    assert 2.0 < linear < converged  # a share of sqrt(L), as it should be
    for side, sign in ((found.plus, 1), (found.minus, -1)):
        # grids of 20 / 1000 and 0.02, and a fit that is exact to about 1e-3
        assert side.linear_end == pytest.approx(sign * linear, abs=0.06)
        assert side.convergence_start == pytest.approx(sign * converged, abs=0.04)
        assert side.edge == sign * 20
    names = [name for name, _, _ in found.spans()]
    assert names == ["convergence", "transitional", "linear", "transitional", "convergence"]
    edges = [low for _, low, _ in found.spans()] + [found.spans()[-1][2]]
    assert edges == sorted(edges) and edges[0] == -20 and edges[-1] == 20


def test_region_boundaries_move_with_their_numbers():
    wider = analysis.regions(fits(0.5)[0], linear_tolerance=0.2, convergence_slope=0.2)
    assert wider.plus.linear_end == pytest.approx(linear_end(lambda m: preference(m, 0.5), 0.2, 20), abs=0.06)
    assert wider.plus.convergence_start == pytest.approx(np.sqrt(30 * (5 ** (2 / 3) - 1)), abs=0.04)


def test_a_bend_within_a_hair_of_zero_does_not_end_the_linear_region():
    fit = fits(0.5)[0]
    # centre 0.1 and L 0.01 on the right: D(0) = 2^-0.05 and the slope at 0 is far from that of the curve
    bent = replace(fit, params={**fit.params, "beta": 0.5, "m_plus": 0.1, "L_plus": 0.01, "p_plus": 0.05})
    assert bent.slope(0.0) > 1.4 * 0.5  # the curve itself rises by 0.5 a unit
    assert analysis.regions(bent).plus.linear_end is None  # nearly a line to the end of the sweep


def test_boundaries_the_sweep_does_not_reach_are_none():
    m = np.linspace(0.0, 1.0, 21)
    fit = analysis.fit_preference(m, preference(m, 0.5) + 0.01 * np.sin(40 * m))
    found = analysis.regions(fit)
    assert found.minus is None and found.plus.convergence_start is None
    assert found.plus.linear_end is None and found.spans() == [("linear", 0.0, 1.0)]


def test_regions_of_something_else_are_an_error():
    with pytest.raises(FitError, match="utility"):
        analysis.regions(fits()[1])
    with pytest.raises(FitError, match="linear_tolerance is 0"):
        analysis.regions(fits()[0], linear_tolerance=0.0)


# Recommendation


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0, 4.0])
def test_the_budget_binds_where_it_is_spent(budget: float):
    found = analysis.recommend_strength(*fits(0.5), max_utility_drop=budget)
    # preference rises for ever; the drop 10 (1 - 1/(1 + m^2/100)) meets the budget here
    assert found.m == pytest.approx(10 * np.sqrt(budget / (10 - budget)), abs=STEP + 0.01)
    assert found.limit == "budget" and found.within_budget == "some" and found.reliable
    assert budget - 0.05 < found.utility_drop <= budget
    assert found.preference_gain == pytest.approx(preference([found.m], 0.5)[0] - 1.0, abs=0.01)
    assert ("1 nat " if budget == 1 else f"{budget:g} nats ") in found.message


def test_the_peak_is_found_when_the_budget_is_wide():
    found = analysis.recommend_strength(*fits(1.0), max_utility_drop=5.0)
    assert found.m == pytest.approx(np.sqrt(30), abs=0.03)  # a m / (1 + m^2/L) is highest at sqrt(L)
    assert found.limit == "peak"


def test_a_short_sweep_says_so():
    m = np.linspace(-4.0, 4.0, 41)
    found = analysis.recommend_strength(*fits(0.5, m), max_utility_drop=9.0)
    assert found.m == 4.0 and found.limit == "sweep" and found.within_budget == "all"
    assert "sweep further" in found.message and "stays within the budget" in found.message


def test_a_budget_of_nothing_keeps_the_model_as_it_is():
    found = analysis.recommend_strength(*fits(0.5), max_utility_drop=0.0)
    assert found.m == pytest.approx(0.0, abs=0.05) and found.utility_drop <= 0.0


def test_a_change_that_lowers_preference_is_recommended_at_zero():
    # preference that is highest at 0 on both sides
    pref = analysis.fit_preference(M, preference(M, 1.0, alpha=0.0) + utility(M))
    found = analysis.recommend_strength(pref, fits()[1], max_utility_drop=2.0)
    assert found.m == pytest.approx(0.0, abs=0.3) and found.preference_gain < 0.01


def test_a_budget_that_is_never_met_has_no_strength():
    m = np.linspace(8.0, 20.0, 25)
    pref, util = analysis.fit_preference(m, preference(m, 1.0)), analysis.fit_utility(m, utility(m))
    found = analysis.recommend_strength(pref, util, max_utility_drop=0.1)
    assert found.m is None and found.limit == "never" and found.within_budget == "none"
    assert found.strength == "no m"
    assert np.isnan(found.preference) and "no point at m = 0" in found.message


def test_a_loss_counted_from_where_utility_is_undefined_is_not_relied_on():
    pref, util = fits()
    without = analysis.fit_utility(M[M != 0], utility(M[M != 0]))
    found = analysis.recommend_strength(pref, without, max_utility_drop=1.0)
    assert not found.reliable and "Utility is undefined at m = 0" in found.message
    assert analysis.recommend_strength(pref, util, max_utility_drop=1.0).reliable


def test_a_poor_fit_is_called_poor():
    rng = np.random.default_rng(0)
    pref = analysis.fit_preference(M, rng.normal(size=41))
    found = analysis.recommend_strength(pref, fits()[1], max_utility_drop=1.0)
    assert not found.reliable and "preference fit is poor" in found.message
    failed = replace(fits()[0], success=False)
    found = analysis.recommend_strength(failed, fits()[1], max_utility_drop=1.0)
    assert not found.reliable and "did not converge" in found.message


def test_wrong_arguments_are_errors():
    pref, util = fits()
    for budget in (-1.0, np.nan, np.inf):
        with pytest.raises(FitError, match="max_utility_drop"):
            analysis.recommend_strength(pref, util, max_utility_drop=budget)
    with pytest.raises(FitError, match="preference, then"):
        analysis.recommend_strength(util, pref, max_utility_drop=1.0)
    m = np.linspace(30, 50, 21)
    with pytest.raises(FitError, match="share no range"):
        analysis.recommend_strength(pref, analysis.fit_utility(m, utility(m)), max_utility_drop=1.0)


def test_predictions_pass_through_the_measured_points_so_that_a_coarse_fit_does_not_spend_the_budget():
    """A dip of 2 nats at m = 2 that the law cannot follow: a budget of 1 nat does not allow it."""
    pref, util = fits()
    at = int(np.argmin(np.abs(util.m - 2.0)))
    residual = np.zeros(len(util.m))
    residual[at] = -2.0
    dipped = replace(util, residual=residual)
    assert dipped.through_points(util.m[at]) == pytest.approx(util.predict(util.m[at]) - 2.0)
    between = (util.m[at] + util.m[at + 1]) / 2  # half of a residual joined by a straight line to 0
    assert dipped.through_points(between) == pytest.approx(util.predict(between) - 1.0)
    loss = float(dipped.through_points(0.0) - dipped.through_points(util.m[at]))
    assert loss > 1.0
    found = analysis.recommend_strength(pref, dipped, max_utility_drop=1.0)
    assert abs(found.m - util.m[at]) > 0 and found.utility_drop <= 1.0
    assert dipped.through_points(0.0) - dipped.through_points(found.m) <= 1.0 + 1e-9


def test_a_law_that_spikes_where_nothing_was_measured_is_not_believed():
    """A branch so narrow that the swept strengths miss it: the fit is perfect on them and absurd between them."""
    util = fits()[1]
    m, flat = M, np.full(len(M), 0.1) + 0.01 * M
    branches = {f"{name}_{side}": value for side, at in (("plus", 0.05), ("minus", -0.05))
                for name, value in (("m", at), ("L", 1e-6), ("p", 1.0))}  # fmt: skip
    spiked = replace(analysis.fit_preference(m, flat), params={"alpha": 0.0, "beta": 50.0, "b": 0.0, **branches})
    spiked = replace(spiked, residual=flat - spiked.predict(m))
    assert spiked.predict(0.05) > 49
    assert spiked.through_points(0.05) < 0.12
    assert spiked.through_points(m) == pytest.approx(flat)
    assert analysis.recommend_strength(spiked, util, max_utility_drop=50.0).m == pytest.approx(M[-1], abs=0.3)


# Front


def test_no_strength_of_the_front_is_beaten():
    found = analysis.front(*fits(1.0))
    assert (np.diff(found.utility_drop) > 0).all() and (np.diff(found.preference_gain) > 0).all()
    # by brute force over the swept strengths
    m = np.linspace(-20, 20, 401)
    gain = preference(m, 1.0) - 1.0
    drop = -2.0 - utility(m)
    for point in range(0, len(found.m), 7):
        beaten = (gain > found.preference_gain[point] + 0.02) & (drop < found.utility_drop[point] - 0.02)
        assert not beaten.any()
    assert found.m[-1] == pytest.approx(np.sqrt(30), abs=0.15)  # nothing past the peak is worth its price


def test_measured_preference_at_a_budget_by_hand():
    m, pref, util = [0.0, 1.0, 2.0], [1.0, 3.0, 5.0], [0.0, -1.0, -3.0]
    # halfway between 1 and 2 utility has fallen by 2 and preference risen by 3
    np.testing.assert_allclose(analysis.preference_at_budget(m, pref, util, [1.0, 2.0, 9.0]), [2.0, 3.0, 4.0])
    shuffled = analysis.preference_at_budget(m[::-1], pref[::-1], util[::-1], [2.0])
    np.testing.assert_allclose(shuffled, [3.0])
    with pytest.raises(FitError, match="m = 0"):
        analysis.preference_at_budget([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0])
    with pytest.raises(FitError, match="Only 1"):
        analysis.preference_at_budget([0.0, 2.0], [1.0, np.nan], [1.0, 2.0], [1.0])


# Bootstrap


def test_draws_are_means_over_drawn_examples():
    curve, _ = analysis.curves(sweep(n=7))
    values = curve.values.copy()
    values[4, 2:5] = np.nan
    curve = replace(curve, values=values)
    counts = bootstrap.draw_counts(7, 20, seed=3)
    assert counts.shape == (20, 7) and (counts.sum(axis=1) == 7).all()
    draws = bootstrap.curve_draws(curve, counts)
    for draw, count in zip(draws, counts, strict=True):
        picked = np.repeat(np.arange(7), count.astype(int))
        np.testing.assert_allclose(draw, np.nanmean(values[:, picked], axis=1), rtol=1e-12)


def test_bootstrap_interval_covers_like_the_standard_error():
    curve, _ = analysis.curves(sweep(n=400))
    found = bootstrap.interval(bootstrap.curve_draws(curve, bootstrap.draw_counts(400, 1000, seed=0)))
    # a 95% interval of a mean of 400 is 2 * 1.96 standard errors wide; 1000 draws know it to about 5%
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 2 * 1.96 * curve.stderr, rtol=0.15)
    assert ((found[:, 0] < curve.mean) & (curve.mean < found[:, 1])).all()


def test_bootstrap_of_a_curve_takes_less_than_a_second():
    curve, _ = analysis.curves(sweep(n=500))
    begin = time.process_time()
    bootstrap.interval(bootstrap.curve_draws(curve, bootstrap.draw_counts(500, 1000, seed=0)))
    assert time.process_time() - begin < 1.0


# Transfer and the whole


def test_transfer_is_the_training_fit_asked_on_the_test_split():
    train, test = sweep(seed=0), sweep(seed=1)
    found = analysis.transfer(train, test)
    pref, util = analysis.curves(test)
    for name, curve in (("preference", pref), ("utility", util)):
        fit = getattr(found, f"{name}_fit")
        residual = curve.mean - fit.predict(curve.m)
        wanted = 1 - (residual**2).sum() / ((curve.mean - curve.mean.mean()) ** 2).sum()
        assert getattr(found, f"{name}_test") == pytest.approx(wanted, abs=1e-12)
        assert getattr(found, f"{name}_train") == fit.r2 > 0.99
    upside_down = SimpleNamespace(**{**vars(test), "loss_pos": test.loss_neg, "loss_neg": test.loss_pos})
    assert analysis.transfer(train, upside_down).preference_test < 0


def test_analyse_does_everything_at_once():
    table = sweep()
    found = analysis.analyse(table, max_utility_drop=2.0, n_boot=200, seed=4)
    assert found.preference_fit.r2 > 0.99 and found.utility_fit.r2 > 0.99
    assert found.recommendation.max_utility_drop == 2.0 and found.recommendation.interval is not None
    low, high = found.recommendation.interval
    assert low <= found.recommendation.m <= high
    assert [step.max_utility_drop for step in found.front] == [0.5, 1.0, 2.0, 4.0] == list(found.budgets)
    assert (np.diff([step.m for step in found.front]) >= 0).all()
    # joined by lines the gain is at least that of the swept strength, and less than that of the next one
    gains = np.array([step.preference_gain for step in found.front])
    assert (found.measured_gain >= gains - 1e-9).all() and (found.measured_gain < gains + 0.6).all()
    assert {step.m for step in found.front} <= set(M)
    assert found.undefined == "preference 0 of 2460, utility 0 of 2460"
    mean = found.preference.mean
    assert found.measured_at(2.5)[0] == pytest.approx((mean[22] + mean[23]) / 2 - mean[20], abs=1e-12)
    assert found.measured_at(3.0)[1] == pytest.approx(found.utility.mean[20] - found.utility.mean[23], abs=1e-12)
    assert np.isnan(found.measured_at(21.0)).all()
    again = analysis.analyse(table, max_utility_drop=2.0, n_boot=200, seed=4)
    assert again.recommendation == found.recommendation
    np.testing.assert_array_equal(again.utility_interval, found.utility_interval)


def test_analyse_in_any_order_of_the_strengths():
    table = sweep()
    order = np.random.default_rng(0).permutation(41)
    mixed = SimpleNamespace(
        factors=M[order], loss_pos=table.loss_pos[order], loss_neg=table.loss_neg[order],
        reduction="sum", header={},
    )  # fmt: skip
    first, second = (analysis.analyse(t, n_boot=50) for t in (table, mixed))
    assert first.recommendation == second.recommendation


def test_analyse_counts_undefined_points():
    table = sweep()
    # the first ten examples become likely answers of both kinds: P_p + P_n > 1
    table.loss_pos[:, :10] = table.loss_neg[:, :10] = 0.2
    table.reduction = "mean"
    found = analysis.analyse(table, n_boot=50)
    assert found.utility.n_undefined == 410 and found.preference.n_undefined == 0
    assert any("410 of 2460 utility points (16.7%)" in note for note in found.notes)


def test_analyse_of_a_sweep_with_a_row_of_nan():
    table = sweep()
    table.loss_pos[7] = np.nan
    found = analysis.analyse(table, n_boot=50)
    assert found.preference.undefined[7] == 60 and np.isnan(found.preference_interval[7]).all()
    assert found.preference_fit.n_dropped == found.utility_fit.n_dropped == 1
    assert any("60 of 2460 preference points" in note for note in found.notes)
    assert np.isfinite(found.recommendation.interval).all()


def test_analyse_of_a_flat_change_says_so_and_gives_no_number():
    table = sweep()
    table.loss_pos = np.tile(table.loss_pos[20], (41, 1))
    table.loss_neg = np.tile(table.loss_neg[20], (41, 1))
    found = analysis.analyse(table, n_boot=50)
    assert found.preference_fit is None and found.recommendation is None and found.front == ()
    assert sum("flat" in note for note in found.notes) == 2


def test_analyse_of_a_short_sweep_keeps_the_curves():
    m = np.linspace(-2, 2, 5)
    found = analysis.analyse(sweep(m=m), n_boot=50)
    assert found.preference_fit is None and np.isfinite(found.preference.mean).all()
    assert any("5 distinct strengths" in note for note in found.notes)


def test_analyse_checks_its_arguments():
    with pytest.raises(FitError, match="max_utility_drop"):
        analysis.analyse(sweep(), max_utility_drop=-1)
    with pytest.raises(FitError, match="n_boot"):
        analysis.analyse(sweep(), n_boot=0)
