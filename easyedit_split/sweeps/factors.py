"""Which strengths to sweep: as far out as a change's own scale allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .. import distributed
from ..analysis.logodds import util_log_odds
from ..changes.artifact import SteeringArtifact
from ..data.pairs import PreferencePair
from ..models.guards import eval_mode_frozen
from ..models.parts import context_length
from ..models.protocols import CausalLM, Tokenizer
from ..scoring.scorer import PairScorer, halve_on_oom, joined
from .run import check_finite, encoder_for

MOST_SPENT = 8.0  # nats of utility
PROBE_PAIRS = 8
PROBES = tuple(2.0**k for k in range(-4, 10))


def sweep_factors(
    model: CausalLM, tokenizer: Tokenizer, pairs: Sequence[PreferencePair], artifact: SteeringArtifact, points: int
) -> NDArray[np.float64]:
    """`points` strengths to sweep, 0 among them: as many on each side, up to where mean utility has fallen by 8 nats.

    A change has its own scale, so each side is tried outwards on a few held-out pairs, by powers of two from 1/16. It
    ends at the first that is past the limit, at the last where the model's losses are still finite, or at 512.

    Raises:
        ConfigError: the losses are not finite at 0 or at 1/16.
    """
    encoded = encoder_for(tokenizer, artifact).pairs(list(pairs)[:PROBE_PAIRS], context_length(model))
    everyone = torch.arange(len(encoded))
    with eval_mode_frozen(model), artifact.attach(model, 0.0) as handle, torch.no_grad():
        scorer = PairScorer(model, encoded, handle)

        def losses(m: float) -> NDArray[np.float64]:
            """`(2, N)`, of both answers."""
            handle.set_strength(m)
            found = joined(halve_on_oom(scorer.losses, everyone))
            return torch.stack([found.matching, found.not_matching]).double().cpu().numpy()

        for m in (0.0, -PROBES[0], PROBES[0]):
            check_finite(losses(m), np.full(len(encoded), m), model)
        lowest, highest = (_end(losses, sign) for sign in (-1.0, 1.0))
    negative = (points - 1) // 2
    below = np.linspace(lowest, 0, negative, endpoint=False)
    return np.concatenate([below, np.linspace(0, highest, points - negative)])


def _end(losses: Callable[[float], NDArray[np.float64]], sign: float) -> float:
    """The outermost strength of one side."""
    at_zero = _mean_utility(losses(0.0))
    last = 0.0
    for probe in PROBES:
        m = sign * probe
        spent = at_zero - _mean_utility(losses(m))
        if not distributed.everywhere(math.isfinite(spent)):
            return last
        if not distributed.everywhere(spent <= MOST_SPENT):
            return m
        last = m
    return last


def _mean_utility(losses: NDArray[np.float64]) -> float:
    """Nats; NaN where a loss is not finite."""
    return float(np.nanmean(util_log_odds(*losses))) if np.isfinite(losses).all() else math.nan
