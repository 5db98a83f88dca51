"""The gap between two swept strengths in which the curves are known least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .measured import Measured, left_out

Array = NDArray[np.float64]

NARROW = 0.002  # share of the sweep's reach below which a gap is not halved
CONCERN = 4.0  # times the budget: dearer strengths concern the advice less
LESS, LEAST = 0.3, 0.05  # weights of gaps that concern it less, and of those that do not


def least_known(measured: Measured, budget: float) -> float | None:
    """The middle of the gap whose curves are least certain where it matters; None where every gap is narrow.

    How uncertain a gap is: by how much the cubic through the other strengths misses both curves at its ends, which
    is large where they bend. Gaps that cost more than four times the budget count 0.05, others without a gain in
    preference 0.3.
    """
    m = measured.m
    if len(m) < 4:
        return None
    missed = _missed(m, measured.preference) ** 2 + _missed(m, measured.utility) ** 2
    size = np.sqrt((missed[:-1] + missed[1:]) / 2)
    concerns = np.minimum(measured.spent[:-1], measured.spent[1:]) <= CONCERN * budget
    gains = np.maximum(measured.gain[:-1], measured.gain[1:]) > 0
    wide = np.diff(m) > NARROW * (m[-1] - m[0])
    value = size * np.where(concerns, np.where(gains, 1.0, LESS), LEAST) * wide
    k = int(np.argmax(value))
    return float(m[k] + m[k + 1]) / 2 if value[k] > 0 else None


def _missed(m: Array, level: Array) -> Array:
    """By how much the cubic through the other points misses each point, (K,); 0 at the ends, which have one side."""
    return left_out(m, level) - level
