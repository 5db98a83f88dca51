"""Preference and utility log-odds (Eqs. 7 and 8), and the curve over m that is their mean over examples.

Everything is in nats. A loss is the negative log-probability of an answer, by sum or by mean over its tokens.
With sums the two answers of a pair are disjoint events, so P_p + P_n <= 1 and utility is defined.
With means s = log(P_p + P_n) >= 0 happens: utility does not exist there. Such a point is NaN and counted,
never clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, FitError

Array = NDArray[np.float64]

LOG_HALF = -0.6931471805599453
LOSS_FLOOR = -1e-4  # float32 log-softmax may give a loss this little below zero by rounding; less is an error
LOSS_CEILING = 1e30  # nats; a finite loss above it is a broken number
SMALLEST, LARGEST = 1e-100, 1e100  # of the strengths of a sweep: their squares and slopes stay numbers


class Sweep(Protocol):
    """What the analysis needs of a sweep table: losses in nats, (M, N) for M strengths and N examples."""

    @property
    def factors(self) -> NDArray[Any]: ...
    @property
    def loss_pos(self) -> NDArray[Any]: ...
    @property
    def loss_neg(self) -> NDArray[Any]: ...
    @property
    def reduction(self) -> str: ...
    @property
    def header(self) -> Mapping[str, Any]: ...


def _losses(loss_pos: ArrayLike, loss_neg: ArrayLike) -> tuple[Array, Array]:
    pos, neg = np.asarray(loss_pos, dtype=float), np.asarray(loss_neg, dtype=float)
    if pos.shape != neg.shape:
        raise DataError(f"The losses have shapes {pos.shape} and {neg.shape}; both answers need the same shape.")
    for name, loss in (("loss_pos", pos), ("loss_neg", neg)):
        lowest = np.nanmin(loss, initial=0.0)
        if lowest < LOSS_FLOOR:
            raise DataError(f"{name} holds {lowest:.6g} but a loss is at least 0; pass losses, not log-probabilities.")
        highest = np.max(loss, initial=0.0, where=np.isfinite(loss))
        if highest > LOSS_CEILING:
            raise DataError(f"{name} holds {highest:.6g} nats, more than any model gives; measure the sweep again.")
    return pos, neg


def _finite_or_nan(values: Array) -> Array:
    return np.where(np.isfinite(values), values, np.nan)


def pref_log_odds(loss_pos: ArrayLike, loss_neg: ArrayLike) -> Array:
    """Preference log-odds log(P_p / P_n) = L_n - L_p (Eq. 7), in nats.

    Args:
        loss_pos, loss_neg: losses of the matching and the not-matching answer, any one shape, nats, sum or
            mean.
    Returns:
        Same shape. NaN where a loss is NaN or infinite.
    Raises:
        DataError: the shapes differ, or a loss is negative.
    """
    pos, neg = _losses(loss_pos, loss_neg)
    with np.errstate(invalid="ignore"):
        return _finite_or_nan(neg - pos)


def util_log_odds(loss_pos: ArrayLike, loss_neg: ArrayLike) -> Array:
    """Utility log-odds log(P / (1 - P)) with P = P_p + P_n (Eq. 8), in nats.

    With s = log P = logaddexp(-L_p, -L_n) the value is s - log(1 - e^s); the second term is taken as
    log(-expm1(s)) near zero and log1p(-exp(s)) elsewhere, so no digit is lost at either end.

    Args:
        loss_pos, loss_neg: losses of the two answers, any one shape, nats, sum or mean.
    Returns:
        Same shape. NaN where utility is not defined: s >= 0 (happens with means), or a loss is NaN, or both
        losses are infinite.
    Raises:
        DataError: the shapes differ, or a loss is negative.
    """
    pos, neg = _losses(loss_pos, loss_neg)
    with np.errstate(invalid="ignore", divide="ignore", under="ignore"):
        s = np.logaddexp(-pos, -neg)
        s = np.where(s < 0, s, np.nan)
        near = np.log(-np.expm1(np.maximum(s, LOG_HALF)))
        far = np.log1p(-np.exp(np.minimum(s, LOG_HALF)))
        return _finite_or_nan(s - np.where(s > LOG_HALF, near, far))


@dataclass(frozen=True, eq=False)
class Curve:
    """A log-odds curve over m, in nats.

    Attributes:
        kind: ``"preference"`` or ``"utility"``.
        m: (M,) strengths.
        values: (M, N) log-odds of each example; NaN where undefined.
        mean: (M,) mean over the examples that are defined at that m; NaN where none is.
        stderr: (M,) standard error of that mean over examples; NaN with fewer than two.
        undefined: (M,) number of undefined examples at each m.
    """

    kind: str
    m: Array
    values: Array
    mean: Array
    stderr: Array
    undefined: NDArray[np.int64]

    @property
    def n_undefined(self) -> int:
        """Undefined points of the whole table."""
        return int(self.undefined.sum())

    @property
    def n_points(self) -> int:
        """All points of the table, M times N."""
        return int(self.values.size)


def make_curve(kind: str, m: ArrayLike, values: ArrayLike) -> Curve:
    """The mean over examples of (M, N) log-odds, with its standard error; points sorted by m.

    An example that is undefined at some m is left out at that m only. Where some are, the mean is over
    another set of examples than its neighbours': the counts say how many.

    Raises:
        DataError: shapes do not match, there is no example, m is not finite or out of range, or a strength is listed
            twice.
    """
    at, table = np.asarray(m, dtype=float) + 0.0, np.asarray(values, dtype=float)  # -0.0 becomes 0.0
    if at.ndim != 1 or table.ndim != 2 or len(table) != len(at) or not table.size:
        raise DataError(
            f"Strengths of shape {at.shape} and log-odds of shape {table.shape} do not match; give (M,) and (M, N)."
        )
    if not np.isfinite(at).all():
        raise DataError(f"A strength of the sweep is {at[~np.isfinite(at)][0]}; give finite strengths.")
    check_reach(at)
    order = np.argsort(at, kind="stable")
    at, table = at[order], table[order]
    repeated = at[1:][np.diff(at) == 0]
    if repeated.size:
        raise DataError(f"The sweep lists m = {repeated[0]:g} more than once; give each strength once.")
    defined = np.isfinite(table)
    count = defined.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, table, 0.0).sum(axis=1) / count
        spread = np.where(defined, table - mean[:, None], 0.0)
        stderr = np.sqrt((spread**2).sum(axis=1) / (count - 1) / count)
    stderr = np.where(count > 1, stderr, np.nan)
    return Curve(kind, at, np.where(defined, table, np.nan), mean, stderr, table.shape[1] - count)


def check_reach(m: Array) -> None:
    """Check that the largest of the strengths (M,) is of a size that can be reckoned with.

    Raises:
        DataError: it is above 1e100, or not 0 and below 1e-100.
    """
    reach = float(np.abs(m).max())
    if reach and not SMALLEST <= reach <= LARGEST:
        raise DataError(
            f"The largest strength is {reach:.3g} but must lie between {SMALLEST:g} and {LARGEST:g}; scale the change, "
            "so that strengths near 1 matter."
        )


def curves(table: Sweep) -> tuple[Curve, Curve]:
    """Preference and utility curve of a sweep.

    Raises:
        FitError: no utility point is defined.
        DataError: the losses or the strengths cannot be used.
    """
    preference = make_curve("preference", table.factors, pref_log_odds(table.loss_pos, table.loss_neg))
    utility = make_curve("utility", table.factors, util_log_odds(table.loss_pos, table.loss_neg))
    if not np.isfinite(preference.mean).any():
        raise FitError("Every loss of the sweep is NaN or infinite; measure the sweep again.")
    if not np.isfinite(utility.mean).any():
        remedy = "use reduction='sum'" if table.reduction == "mean" else "measure the sweep again"
        raise FitError(
            f"All {utility.n_points} utility points are undefined with reduction={table.reduction!r} "
            f"(the two answers' probabilities add up to 1 or more); {remedy}."
        )
    return preference, utility


def beside(value: float, bound: float) -> str:
    """A number with two decimals, or as many as it takes for it to compare with ``bound`` as it does."""
    for decimals in range(2, 16):
        text = f"{value:.{decimals}f}"
        if (float(text) > bound) == (value > bound) and (float(text) < bound) == (value < bound):
            break
    return text


def nats(value: float) -> str:
    """A number of nats in words: "1 nat", "0.5 nats"."""
    return f"{value:g} nat" if value == 1 else f"{value:g} nats"
