"""The harmonic mean of a generation's scores (AxBench; App. A)."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DataError


def harmonic_mean(scores: Sequence[float | None]) -> float | None:
    """Harmonic mean of the scores of one generation: 0 if any is 0, None if any is missing.

    Raises:
        DataError: no score, or a negative one.
    """
    if not scores:
        raise DataError("a harmonic mean needs at least one score")
    known = [s for s in scores if s is not None]
    if any(s < 0 for s in known):
        raise DataError(f"a score is {min(known):g}: scores are 0 or more")
    if len(known) < len(scores):
        return None
    if any(s == 0 for s in known):
        return 0.0
    return len(known) / sum(1 / s for s in known)


def mean_harmonic(columns: Sequence[Sequence[float | None]]) -> tuple[float | None, int]:
    """Mean over generations of their harmonic mean, and how many generations have a missing score.

    Args:
        columns: one list of scores a rubric, all of the same length. Generations with a missing score are left out.
    """
    values = [harmonic_mean(row) for row in zip(*columns, strict=True)]
    known = [v for v in values if v is not None]
    return (sum(known) / len(known) if known else None), len(values) - len(known)
