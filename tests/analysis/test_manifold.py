"""The measured manifold on activations whose plane, radius and decay are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from easyedit_split.analysis import fit_manifold, fit_utility, measured_decay
from easyedit_split.analysis.manifold import rank_correlation
from easyedit_split.errors import DataError

D, K = 12, 3


def clean(n: int = 2000, seed: int = 0, noise: float = 0.1) -> np.ndarray:
    """Activations 5 + a plane of the first three axes with deviations 4, 3, 2, and noise along all twelve."""
    rng = np.random.default_rng(seed)
    points = 5.0 + noise * rng.normal(size=(n, D))
    points[:, :K] += rng.normal(size=(n, K)) * [4.0, 3.0, 2.0]
    return points


def test_finds_the_plane_and_the_mean():
    found = fit_manifold(clean(), rank=K)
    np.testing.assert_allclose(found.mean, 5.0, atol=0.5)  # 4 / sqrt(1000) = 0.13, four of them
    projector = found.components.T @ found.components
    np.testing.assert_allclose(projector, np.diag([1.0] * K + [0.0] * (D - K)), atol=0.02)
    np.testing.assert_allclose(found.deviations, [4, 3, 2], rtol=0.1)
    assert found.explained == pytest.approx(29 / (29 + 9 * 0.01), abs=0.002)
    # the rank that explains 90%: 16/29 and 25/29 are less, 29/29 is enough
    assert len(fit_manifold(clean()).components) == K


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.2])
def test_epsilon_holds_the_share_of_eq_9_on_new_points(delta: float):
    found = fit_manifold(clean(), delta=delta, rank=K)
    outside = (found.distance(clean(seed=9, n=20_000)) > found.epsilon).mean()
    # the quantile of 1000 held-out points has a deviation of sqrt(delta / 1000)
    assert outside == pytest.approx(delta, abs=4 * np.sqrt(delta / 1000))


def test_distance_and_validity_by_hand():
    found = fit_manifold(clean(), rank=K)
    off = np.zeros(D)
    off[-1] = 1.0
    off -= (found.components @ off) @ found.components  # straight off the plane
    off /= np.linalg.norm(off)
    step = np.array([0.0, 0.5, 1.0, 2.0, 10.0])
    points = found.mean + step[:, None] * found.epsilon * off
    np.testing.assert_allclose(found.distance(points), step * found.epsilon, atol=1e-12)
    np.testing.assert_allclose(found.validity(points), [1, 1, 1, 1 / 4, 1 / 100], rtol=1e-9)
    # inside the plane, twice as far out as clean points go: a quarter as well
    along = found.mean + 2 * found.inner_radius * found.deviations[0] * found.components[0]
    assert found.validity(along) == pytest.approx(1 / 4, rel=1e-9)
    assert found.validity(np.stack([points, points])).shape == (2, 5)


def test_steering_off_the_manifold_decays_and_agrees_with_the_fitted_decay():
    found = fit_manifold(clean(), rank=K)
    direction = np.zeros(D)
    direction[5] = 0.1
    points, m = clean(n=200, seed=4), np.linspace(-20, 20, 41)
    y = 3 / (1 + m**2 / 50) - 4
    order = np.random.default_rng(0).permutation(41)
    measured = measured_decay(found, m[order], [points + value * direction for value in m[order]], fit_utility(m, y))
    np.testing.assert_array_equal(measured.m, m)
    assert measured.decay[20] == 1.0 and (np.diff(measured.decay[20:]) <= 1e-12).all()
    assert measured.rank_correlation > 0.9
    # far out the distance is |m| / 10, and V its inverse square
    assert measured.distance[-1] * found.epsilon == pytest.approx(2.0, rel=0.03)
    assert measured.validity[-1] == pytest.approx((found.epsilon / 2) ** 2, rel=0.05)


def test_without_a_fit_or_with_nothing_to_compare():
    found = fit_manifold(clean(n=100), rank=K)
    points = clean(n=20, seed=4)
    alone = measured_decay(found, [0.0, 1.0], [points, points + 1])
    assert alone.fitted is None and alone.rank_correlation is None
    m = np.linspace(-20, 20, 41)
    fit = fit_utility(m, 3 / (1 + m**2 / 50))
    still = measured_decay(found, [-1.0, 0.0, 1.0], [points] * 3, fit)
    assert np.isnan(still.rank_correlation)


def test_rank_correlation_against_scipy():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 8, (2, 30)).astype(float)  # with ties
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert rank_correlation(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1.0)


def test_wrong_input_is_an_error():
    with pytest.raises(DataError, match="at least 8"):
        fit_manifold(clean(n=5))
    with pytest.raises(DataError, match="not finite"):
        fit_manifold(np.full((10, 3), np.nan))
    with pytest.raises(DataError, match="all alike"):
        fit_manifold(np.ones((10, 3)))
    with pytest.raises(DataError, match="delta is 1"):
        fit_manifold(clean(), delta=1.0)
    with pytest.raises(DataError, match="rank is 12"):
        fit_manifold(clean(), rank=D)
    with pytest.raises(DataError, match="rank is 0"):
        fit_manifold(clean(), rank=0)
    found = fit_manifold(clean(), rank=K)
    with pytest.raises(DataError, match="m = 0"):
        measured_decay(found, [1.0], [clean(n=9)])
    with pytest.raises(DataError, match="1 sets"):
        measured_decay(found, [0.0, 1.0], [clean(n=9)])
