"""The fit: it recovers the law, matches a plain nine-parameter search, and answers bad input in words."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from easyedit_split.analysis import decay, fit_preference, fit_utility, fitted_curves
from easyedit_split.analysis.solve import (
    SCREEN_DROPS,
    Objective,
    Problem,
    basis,
    bounds,
    branch_fits,
    continuity,
    continuity_gradient,
)  # fmt: skip
from easyedit_split.errors import FitError

FITS = {"preference": fit_preference, "utility": fit_utility}
M = np.linspace(-20.0, 20.0, 41)
# -log D(0) = log1p(4/60) on both sides: with p = 1 the left centre is -3 for L = 135
SHAPE = np.array([2.0, 60.0, 1.0, -3.0, 135.0, 1.0])
PARAMS = {"preference": np.array([0.8, 1.0, -0.5, *SHAPE]), "utility": np.array([12.0, -9.0, *SHAPE])}
KINDS = sorted(FITS)


def noisy(kind: str, scale: float, seed: int = 0, m: np.ndarray = M) -> np.ndarray:
    return fitted_curves.curve(kind, m, PARAMS[kind]) + scale * np.random.default_rng(seed).normal(size=len(m))


@pytest.mark.parametrize("kind", KINDS)
def test_recovers_the_law_without_noise(kind: str):
    result = FITS[kind](M, noisy(kind, 0.0))
    # the search stops when the cost, relative to the total, changes by less than 1e-13
    assert result.r2 > 1 - 1e-10
    np.testing.assert_allclose(result.vector, PARAMS[kind], rtol=2e-2)
    assert abs(result.continuity_residual) < 1e-7
    assert result.success and result.sides == "both" and result.n_free == len(PARAMS[kind]) - 1
    assert list(result.params) == list(fitted_curves.parameter_names(kind))
    np.testing.assert_allclose(result.predict(M), noisy(kind, 0.0), atol=1e-3)


def test_standard_errors_match_the_spread_of_repeated_fits():
    scale, n = 0.01, 30
    results = [fit_preference(M, noisy("preference", scale, seed)) for seed in range(n)]
    spread = np.std([result.vector for result in results], axis=0)
    predicted = np.median([list(result.stderr.values()) for result in results], axis=0)
    # the standard deviation of n draws is known to 1 / sqrt(2 n) = 13%; three of those
    np.testing.assert_allclose(predicted, spread, rtol=0.39)


def test_standard_errors_scale_with_the_noise_and_the_condition_does_not():
    small, large = (fit_preference(M, noisy("preference", scale)) for scale in (1e-4, 1e-3))
    ratio = large.stderr["alpha"] / small.stderr["alpha"]
    assert ratio == pytest.approx(10, rel=0.05)
    assert large.condition == pytest.approx(small.condition, rel=0.2)
    # beta and b trade off: their correlation is what R^2 hides
    covariance = small.covariance[1:3, 1:3]
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < -0.99


def test_goodness_of_fit_by_hand():
    y = noisy("utility", 0.1)
    result = fit_utility(M, y)
    residual = y - result.predict(M)
    r2 = 1 - (residual**2).sum() / ((y - y.mean()) ** 2).sum()
    assert result.r2 == pytest.approx(r2, abs=1e-12)
    assert result.rmse == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-12)
    assert result.adjusted_r2 == pytest.approx(1 - (1 - r2) * 40 / (41 - 7), abs=1e-12)
    assert result.r2_on(M, y) == pytest.approx(result.r2, abs=1e-12)
    other = -y
    assert result.r2_on(M, other) < 0  # the mean of the new points would do better
    assert np.isnan(result.r2_on(M, np.ones_like(M)))


def test_weights_follow_the_standard_errors():
    y = noisy("utility", 0.0)
    y[30] += 5.0  # a bad point that says so
    error = np.full(41, 0.1)
    error[30] = 1000.0
    assert np.abs(fit_utility(M, y, error).predict(M) - noisy("utility", 0.0)).max() < 0.02
    assert np.abs(fit_utility(M, y).predict(M) - noisy("utility", 0.0)).max() > 0.1
    same = fit_utility(M, y, np.full(41, 0.3))
    assert same.r2 == pytest.approx(fit_utility(M, y).r2, abs=1e-9)  # only ratios of errors matter
    # several equal points weigh like one with a smaller error
    twice = fit_utility(np.concatenate([M, M[20:]]), np.concatenate([y, y[20:]]))
    weighted = fit_utility(M, y, np.where(np.arange(41) < 20, np.sqrt(2.0), 1.0))
    np.testing.assert_allclose(twice.predict(M), weighted.predict(M), atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_one_sided_sweeps_fit_one_branch_and_say_so(kind: str, sign: int):
    m = sign * np.linspace(0.0, 20.0, 21)
    shape = SHAPE.copy() if sign > 0 else np.array([3.0, 135.0, 1.0, -2.0, 60.0, 1.0])
    params = np.concatenate([PARAMS[kind][:-6], shape])
    y = fitted_curves.curve(kind, np.where(m == 0, sign * 5e-324, m), params)
    result = FITS[kind](m, y)
    side, other = ("plus", "minus") if sign > 0 else ("minus", "plus")
    assert result.sides == side and "one branch only" in result.message
    assert np.isnan([result.params[f"{name}_{other}"] for name in "mLp"]).all()
    assert result.n_free == len(params) - 3
    np.testing.assert_allclose(result.predict(m), y, atol=2e-3)  # m = 0 included
    assert np.isnan(result.predict([-5.0 * sign])).all()  # never a silent number on the side not measured


@pytest.mark.parametrize("kind", KINDS)
def test_order_units_and_offset_do_not_matter(kind: str):
    y = noisy(kind, 0.05)
    first = FITS[kind](M, y)
    order = np.random.default_rng(3).permutation(41)
    np.testing.assert_allclose(FITS[kind](M[order], y[order]).predict(M), first.predict(M), atol=1e-9)
    moved = FITS[kind](M / 1000, 100 * y - 7)
    np.testing.assert_allclose(moved.predict(M / 1000), 100 * first.predict(M) - 7, atol=1e-2)
    assert moved.r2 == pytest.approx(first.r2, abs=1e-8)
    repeat = FITS[kind](M, y)
    np.testing.assert_array_equal(repeat.vector, first.vector)  # deterministic


def test_undefined_points_are_left_out_and_counted():
    y = noisy("utility", 0.01)
    y[[3, 17]] = np.nan
    y[5] = np.inf
    result = fit_utility(M, y)
    assert (result.n_dropped, result.n_points) == (3, 38) and "3 undefined points left out" in result.message


def test_a_sweep_without_zero_is_fitted():
    keep = M != 0
    assert fit_preference(M[keep], noisy("preference", 0.01)[keep]).r2 > 0.999


@pytest.mark.parametrize(
    ("m", "y", "words"),
    [
        (M[:8], M[:8] ** 2, "8 distinct|at least"),
        (np.repeat(M[18:23], 8), np.arange(40.0), "5 distinct strengths"),
        (M, np.full(41, 3.0), "flat"),
        (M, np.full(41, np.nan), "reduction='sum'"),
        (M, np.ones(40), r"\(41,\)"),
        (np.append(M[1:], np.nan), M, "finite"),
        (np.append(np.linspace(0, 20, 20), -1.0), np.arange(21.0), "Only 1 strengths are negative"),
        (np.zeros(41), M, "distinct"),
    ],
)
def test_input_that_cannot_determine_a_curve_is_an_error(m, y, words: str):
    if words.startswith("8"):
        m, y, words = np.linspace(-20, 20, 7), np.arange(7.0), "7 distinct strengths.*at least 9"
    with pytest.raises(FitError, match=words):
        fit_preference(m, y)


def test_bad_standard_errors_are_an_error():
    for error in (np.zeros(41), -np.ones(41), np.full(41, np.nan)):
        with pytest.raises(FitError, match="standard error"):
            fit_utility(M, noisy("utility", 0.1), error)
    with pytest.raises(FitError, match="one error a point"):
        fit_utility(M, noisy("utility", 0.1), np.ones(3))


def test_noise_is_not_called_a_law():
    result = fit_preference(M, np.random.default_rng(0).normal(size=41))
    assert result.r2 < 0.7 and result.adjusted_r2 < result.r2


def test_a_straight_line_shows_in_the_condition_number_and_not_in_r2():
    result = fit_preference(M, 0.3 * M + 0.01 * np.random.default_rng(0).normal(size=41))
    assert result.r2 > 0.999
    assert result.condition > 1e3 * fit_preference(M, noisy("preference", 0.01)).condition
    assert not result.stderr["beta"] < abs(result.params["beta"])


def test_parameters_at_a_bound_are_named_and_have_no_error():
    m = np.linspace(0.0, 20.0, 21)
    result = fit_utility(m, -np.log1p(m))  # no power of the search is as small as this asks for
    assert result.at_bound and all(name in result.message for name in result.at_bound)
    assert all(np.isnan(result.stderr[name]) for name in result.at_bound)
    assert np.isfinite([result.stderr["beta"], result.stderr["b"]]).all()


def test_what_the_law_does_not_suppose_is_said():
    rising = fit_utility(M, -noisy("utility", 0.01))
    assert rising.params["beta"] < 0 and "beta is negative" in rising.message
    assert "beta is negative" not in fit_utility(M, noisy("utility", 0.01)).message


def test_a_bend_between_two_strengths_is_said():
    sharp = np.array([12.0, -9.0, 0.0, 0.05, 0.5, 0.0, 0.05, 0.5])  # falls to half within 0.4 of 0
    coarse, fine = M, np.unique(np.concatenate([M, np.linspace(-2, 2, 81)]))
    said = fit_utility(coarse, fitted_curves.curve("utility", coarse, sharp)).message
    assert "between neighbouring strengths near m = " in said and "sweep more strengths" in said
    assert "neighbouring" not in fit_utility(fine, fitted_curves.curve("utility", fine, sharp)).message


def test_gradients_of_the_search_against_differences():
    rng = np.random.default_rng(5)
    problem = Problem(M / 20, rng.normal(size=41), rng.uniform(0.5, 2, 41), True, ("plus", "minus"))
    objective = Objective(problem)
    low, high = np.array(bounds(problem)).T
    for _ in range(10):
        shape = low + (high - low) * rng.uniform(0.2, 0.8, 6)
        for function, gradient in (
            (lambda u: objective(u)[0], objective(shape)[1]),
            (continuity, continuity_gradient(shape)),
        ):
            step = 1e-6 * np.eye(6)
            wanted = [(function(shape + h) - function(shape - h)) / 2e-6 for h in step]
            # differences at 1e-6 carry about eps / 1e-6 = 2e-10 times the size of the function
            np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("has_slope", [True, False])
def test_the_searchs_own_copies_of_the_law_are_the_law(has_slope: bool):
    """For speed it has D by blocks, D of many shapes at once, and continuity in logarithms."""
    rng = np.random.default_rng(6)
    problem = Problem(M / 20, rng.normal(size=41), rng.uniform(0.5, 2, 41), has_slope, ("plus", "minus"))
    low, high = np.array(bounds(problem)).T
    for _ in range(10):
        shape = low + (high - low) * rng.uniform(0.0, 1.0, 6)
        natural = np.where(np.arange(6) % 3 == 0, shape, np.exp(shape))
        np.testing.assert_allclose(Objective(problem).decay(shape)[0], decay.decay(problem.x, natural), rtol=1e-13)
        right, left = decay.decay([0.0, -5e-324], natural)
        assert continuity(shape) == pytest.approx(np.log(left / right), abs=1e-12)
        assert decay.continuity_gap(natural) == pytest.approx(right - left, abs=1e-15)
    for side, at in (("plus", 0), ("minus", 3)):
        block = problem.block(side)
        alone = Problem(problem.x[block], problem.y[block], problem.root_weight[block], has_slope, (side,))
        shapes, normal, moment = branch_fits(problem, side, SCREEN_DROPS[3])
        for shape, left, right in zip(shapes, normal, moment, strict=True):
            natural = np.ones(6)
            natural[at : at + 3] = shape[0], np.exp(shape[1]), np.exp(shape[2])
            design = basis(alone, decay.decay(alone.x, natural)) * alone.root_weight[:, None]
            np.testing.assert_allclose(left, design.T @ design, rtol=1e-12)
            np.testing.assert_allclose(right, design.T @ (alone.y * alone.root_weight), rtol=1e-10, atol=1e-13)


def load_benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "fit.py"
    spec = importlib.util.spec_from_file_location("benchmark_fit", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_matches_a_plain_search_from_random_starts_and_is_fast():
    """The reduced form of benchmarks/fit.py: 8 curves, 8 starts each."""
    benchmark = load_benchmark()
    rng = np.random.default_rng(11)
    seconds = []
    for number in range(8):
        kind, m, y = benchmark.random_curve(rng)
        begin = time.process_time()
        result = FITS[kind](m, y)
        seconds.append(time.process_time() - begin)
        reference = benchmark.plain_r2(kind, m, y, 8, np.random.default_rng(number))
        assert result.r2 > reference - 1e-4, (number, kind)
        assert abs(result.continuity_residual) < 1e-6
    # processor time, not wall time, and twice the target, so that a busy machine does not fail the test
    assert np.median(seconds) < 0.2
