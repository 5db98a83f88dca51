"""What is drawn of a curve: the law where the points bear it out, and elsewhere the points joined."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from .logodds import Curve
from .measured import cubic
from .result import FitResult

Array = NDArray[np.float64]

NEAR = 0.015  # share of a curve's range by which the law may miss a point that bears it out


def lines(curve: Curve, interval: Array, fit: FitResult | None, n: int = 801) -> tuple[Array, Array, Array]:
    """Strengths, the law where the points on both sides bear it out, and elsewhere the points joined; NaN otherwise.

    Borne out: the law is within the interval of both points and 3% of the curve's range, or within 1.5% of that range,
    and as near to the joined points all the way between them. (Pairs differ by more than their curves bend, so that an
    interval alone would bear out anything.)
    """
    known = np.isfinite(curve.mean)
    at, mean, half = curve.m[known], curve.mean[known], np.diff(interval[known], axis=1)[:, 0] / 2
    m = np.union1d(np.linspace(at[0], at[-1], n), at)
    chord = np.interp(m, at, mean)
    if fit is None or len(at) < 2:
        return m, np.full(len(m), np.nan), chord
    law = fit.predict(m)
    near = np.clip(np.interp(m, at, half), NEAR * np.ptp(mean), 2 * NEAR * np.ptp(mean))
    points = np.searchsorted(m, at)
    good = np.abs(law - chord) <= near
    curved = np.abs(law - cubic(at, mean, m)) <= near
    drawn = np.array([good[[a, b]].all() and curved[a : b + 1].all() for a, b in itertools.pairwise(points)])
    gap = np.clip(np.searchsorted(at, m, side="right") - 1, 0, len(at) - 2)
    here, before = drawn[gap], drawn[np.clip(np.searchsorted(at, m, side="left") - 1, 0, len(at) - 2)]
    return m, np.where(here | before, law, np.nan), np.where(here & before, np.nan, chord)
