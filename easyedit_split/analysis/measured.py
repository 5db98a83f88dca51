"""What was measured at the swept strengths: the ground that advice stands on.

Between two strengths the curves are joined by a shape-preserving cubic (PCHIP), which never rises or falls where its
points do not. On left-out strengths it is two times nearer than either law bent through the points (docs/log.md), so
the law explains the curves, and the measured curves choose the strength.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .bootstrap import LEVEL, interval
from .logodds import Curve

Array = NDArray[np.float64]

ROUNDING = 1e-12  # share of a preference, or of 1 nat, below which two are equal
BETWEEN = 400  # strengths looked at between the swept ones, over the sweep
LEFT_OUT = 0.5  # the error in a whole gap, from that of a left-out strength, whose gap is twice as wide


@dataclass(frozen=True, eq=False)
class Measured:
    """Both curves at the strengths where both are defined, and at m = 0; nats.

    Attributes:
        m: (K,) ascending, 0 among them. swept: (K,) False only at a 0 that was not measured. lost: swept strengths that
            are not in m, because a curve is undefined there.
        preference, utility: (K,) means over examples. gain: preference against m = 0. spent: loss of utility,
            counted from m = 0 or from the highest utility between 0 and m, whichever is more; 0 at 0.
        gain_draws, spent_draws, lift_draws: (B, K) the same for drawn examples, and utility against m = 0.
        dense: (G,) strengths in and between the swept ones. gain_dense, spent_dense: (G,) there, joined.
        gain_dense_draws, spent_dense_draws: (B, G), with the error of the joining drawn too.
    """

    m: Array
    swept: NDArray[np.bool_]
    lost: Array
    preference: Array
    utility: Array
    gain: Array
    spent: Array
    gain_draws: Array = field(repr=False)
    spent_draws: Array = field(repr=False)
    lift_draws: Array = field(repr=False)
    dense: Array = field(repr=False)
    gain_dense: Array = field(repr=False)
    spent_dense: Array = field(repr=False)
    gain_dense_draws: Array = field(repr=False)
    spent_dense_draws: Array = field(repr=False)

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest of the swept strengths where both curves are defined."""
        return float(self.m[self.swept][0]), float(self.m[self.swept][-1])

    @property
    def where(self) -> str:
        """To be said of swept strengths: nothing, or that not all of them are known."""
        return " where both curves are defined" if len(self.lost) else ""

    @property
    def zero(self) -> int:
        """Index of m = 0."""
        return int(np.searchsorted(self.m, 0.0))

    def counted_from(self, at: int) -> int:
        """Index from which the loss at ``at`` is counted: of the highest utility from m = 0 to it."""
        way = np.arange(min(at, self.zero), max(at, self.zero) + 1)
        highest = way[self.utility[way] == self.utility[way].max()]
        return int(highest[np.argmin(np.abs(self.m[highest]))])

    def higher(self, at: int) -> NDArray[np.bool_]:
        """Where preference is higher than at ``at``, by more than rounding, (K,)."""
        return self.preference > self.preference[at] + _rounding(self.preference[at])

    def best(self, budget: float) -> int | None:
        """The swept strength of highest preference within the budget, of equals the one nearest 0; None without one."""
        allowed = self.swept & (self.spent <= budget)
        if not allowed.any():
            return None
        value = np.where(allowed, self.preference, -np.inf)
        top = np.flatnonzero(value >= value.max() - _rounding(value.max()))
        return int(top[np.argmin(np.abs(self.m[top]))])

    def beyond(self, best: int, budget: float) -> int | None:
        """The nearest swept strength of higher preference than at ``best`` that costs more than the budget."""
        dearer = np.flatnonzero(self.swept & (self.spent > budget) & self.higher(best))
        return int(dearer[np.argmin(np.abs(self.m[dearer] - self.m[best]))]) if len(dearer) else None

    def gain_interval(self, budget: float, at: int) -> tuple[float, float]:
        """95% interval of the gain at ``at``, although it is the best of all strengths within the budget.

        The best of many noisy gains is higher than it is worth, so the interval is as wide as the largest of their
        studentised errors demands: it holds for all of them at once (the bootstrap's max-t interval).
        """
        if at == self.zero:
            return 0.0, 0.0
        error = self.gain_draws.std(axis=0)
        among = self.swept & (self.spent <= budget) & (error > 0)
        largest = np.abs((self.gain_draws - self.gain)[:, among] / error[among]).max(axis=1, initial=0.0)
        width = float(np.quantile(largest, LEVEL) * error[at])
        return float(self.gain[at]) - width, float(self.gain[at]) + width

    def best_interval(self, budget: float, best: int) -> tuple[float, float]:
        """95% interval of the strength of highest preference within the budget: drawn examples, drawn joining."""
        allowed = self.spent_dense_draws <= budget
        drawn = self.dense[np.where(allowed, self.gain_dense_draws, -np.inf).argmax(axis=1)]
        low, high = interval(drawn[:, None], LEVEL)[0]
        return min(float(low), float(self.m[best])), max(float(high), float(self.m[best]))


def _rounding(value: float) -> float:
    return ROUNDING * max(1.0, abs(value))


def measured(preference: Curve, utility: Curve, at_zero: tuple[float, float], draws: tuple[Array, Array],
             seed: int = 0) -> Measured:  # fmt: skip
    """The measured curves of a sweep.

    Args:
        at_zero: preference and utility at m = 0 where that was not measured.
        draws: (B, M) drawn mean curves of preference and utility, of the same examples.
        seed: of the drawn errors of the joining.
    """
    known = np.isfinite(preference.mean) & np.isfinite(utility.mean)
    m, swept = preference.m[known], np.ones(int(known.sum()), dtype=bool)
    levels = [np.vstack([c.mean, np.where(np.isfinite(d), d, c.mean)])[:, known]
              for c, d in ((preference, draws[0]), (utility, draws[1]))]  # fmt: skip
    zero = int(np.searchsorted(m, 0.0))
    if zero == len(m) or m[zero] != 0:
        levels = [_with_zero(level, m, zero, value) for level, value in zip(levels, at_zero, strict=True)]
        m, swept = np.insert(m, zero, 0.0), np.insert(swept, zero, False)
    inner, share = _between(len(m))
    dense = m[inner] + share * np.diff(m, append=m[-1])[inner]
    joined = [_joined(m, level, inner, share, seed + i) for i, level in enumerate(levels)]
    base = _highest_before(levels[1], zero)
    gain = levels[0] - levels[0][:, zero, None]
    spent = np.maximum(base - levels[1], 0.0)
    # between i and i + 1 the joined curve is within the two, so the highest before is that of the end nearer 0
    nearer = np.where((dense < 0) & (share > 0), inner + 1, inner)
    spent_dense = np.maximum(base[:, nearer] - joined[1], 0.0)
    gain_dense = joined[0] - levels[0][:, zero, None]
    lift = levels[1] - levels[1][:, zero, None]
    return Measured(
        m, swept, preference.m[~known], levels[0][0], levels[1][0], gain[0], spent[0], gain[1:], spent[1:], lift[1:],
        dense, gain_dense[0], spent_dense[0], gain_dense[1:], spent_dense[1:],
    )  # fmt: skip


def _with_zero(level: Array, m: Array, zero: int, value: float) -> Array:
    """The curves (1 + B, K) with a value at m = 0, which moves with the nearest measured one."""
    nearest = level[:, int(np.argmin(np.abs(m)))]
    return np.insert(level, zero, value + nearest - nearest[0], axis=1)


def _highest_before(utility: Array, zero: int) -> Array:
    """The highest utility from m = 0 to each strength, (1 + B, K)."""
    right = np.maximum.accumulate(utility[:, zero:], axis=1)
    left = np.maximum.accumulate(utility[:, zero::-1], axis=1)[:, ::-1]
    return np.hstack([left[:, :-1], right])


def _between(n: int) -> tuple[NDArray[np.int64], Array]:
    """For every dense strength the swept one left of it, and its share of the way to the next."""
    steps = max(4, BETWEEN // max(1, n - 1))
    inner = np.append(np.repeat(np.arange(n - 1), steps), n - 1)
    share = np.append(np.tile(np.arange(steps) / steps, n - 1), 0.0)
    return inner, share


def cubic(at: Array, level: Array, m: Array) -> Array:
    """The shape-preserving cubic through the points (at, level), at strengths m within them."""
    left = np.clip(np.searchsorted(at, m, side="right") - 1, 0, len(at) - 2)
    return _cubic(at, level, _slopes(at, level), left, (m - at[left]) / (at[left + 1] - at[left]))


def _joined(m: Array, levels: Array, inner: NDArray[np.int64], share: Array, seed: int) -> Array:
    """The joined curves (1 + B, G); drawn ones miss the truth between strengths as left-out ones are missed."""
    if len(m) < 2:
        return levels[:, inner]
    curves = _cubic(m, levels, _slopes(m, levels), inner, share)
    if len(m) < 4:
        return curves
    missed = left_out(m, levels[0]) - levels[0]
    missed[[0, -1]] = missed[[1, -2]]
    size = LEFT_OUT * np.sqrt((missed[:-1] ** 2 + missed[1:] ** 2) / 2)
    error = np.random.default_rng([seed, 1]).normal(size=(len(levels) - 1, len(size))) * size
    bow = np.append(4 * share[:-1] * (1 - share[:-1]), 0.0)
    curves[1:] += error[:, np.minimum(inner, len(size) - 1)] * bow
    return curves


def _slopes(m: Array, level: Array) -> Array:
    """Slopes (..., K) of the cubic at its points: the weighted harmonic mean of those of the two gaps (Fritsch and
    Butland, 1984), 0 where they differ in sign, so that the cubic is monotone between its points."""
    h = np.diff(m)
    gap = np.diff(level) / h
    before, after = gap[..., :-1], gap[..., 1:]
    near, far = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mean = (near + far) / (near / before + far / after)
    return np.concatenate([gap[..., :1], np.where(before * after > 0, mean, 0.0), gap[..., -1:]], axis=-1)


def _cubic(m: Array, level: Array, slopes: Array, inner: NDArray[np.int64], share: Array) -> Array:
    """Hermite cubics (..., G) at ``share`` of the way from strength ``inner`` to the next."""
    left, t = np.minimum(inner, len(m) - 2), np.where(inner > len(m) - 2, 1.0, share)
    h, rest = (m[left + 1] - m[left]), 1 - t
    return np.asarray(
        level[..., left] * (rest**2 * (1 + 2 * t)) + level[..., left + 1] * (t**2 * (1 + 2 * rest))
        + slopes[..., left] * (h * t * rest**2) - slopes[..., left + 1] * (h * t**2 * rest)
    )  # fmt: skip


def left_out(m: Array, level: Array) -> Array:
    """What the cubic through the other points says at each inner strength, (K,)."""
    found = level.copy()
    for i in range(1, len(m) - 1):
        rest = np.r_[max(0, i - 3) : i, i + 1 : min(len(m), i + 4)]
        at, before = m[rest], min(i, 3) - 1
        share = np.array([(m[i] - at[before]) / (at[before + 1] - at[before])])
        found[i] = _cubic(at, level[rest], _slopes(at, level[rest]), np.array([before]), share)[0]
    return found
