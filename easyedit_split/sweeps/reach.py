"""How far a change can be swept: strengths placed by its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..changes.artifact import SteeringArtifact
from ..data.pairs import PreferencePair
from .run import sweep

REACH = 8.0  # nats of utility
PROBE_PAIRS = 8
PROBES = tuple(2.0**k for k in range(-4, 10))


def sweep_factors(
    model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], artifact: SteeringArtifact, points: int
) -> NDArray[np.float64]:
    """Strengths to sweep: half of `points` on each side of 0, up to where mean utility has fallen by 8 nats.

    A change has its own scale, so each is swept over its own range: the powers of two from 1/16 to 512 are tried on a
    few held-out pairs, and the first past the limit ends that side.
    """
    probes = np.array([-m for m in reversed(PROBES)] + [0.0, *PROBES])
    table = sweep(model, tokenizer, list(pairs)[:PROBE_PAIRS], artifact, probes, "sum")
    utility = np.nanmean(table.utility(), axis=1)
    drop = utility[len(PROBES)] - utility
    positive, negative = drop[len(PROBES) + 1 :], drop[: len(PROBES)][::-1]
    half = points // 2
    reach = [next((m for m, d in zip(PROBES, side, strict=True) if d > REACH), PROBES[-1]) for side in
             (positive, negative)]  # fmt: skip
    return np.concatenate([np.linspace(-reach[1], 0, half, endpoint=False), np.linspace(0, reach[0], half + 1)])
