"""Which strengths to sweep: as far out as a change's own scale allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .. import distributed
from ..analysis.logodds import pref_log_odds, util_log_odds
from ..changes.artifact import SteeringArtifact
from ..data.pairs import PreferencePair
from ..models.guards import eval_mode_frozen
from ..models.parts import context_length
from ..models.protocols import CausalLM, Tokenizer
from ..scoring.scorer import PairScorer, halve_on_oom, joined
from .run import check_finite, encoder_for

MOST_SPENT = 8.0  # nats of utility
MOVED = 1.0  # nats by which preference has to have moved before it can have turned or come to rest
TURNED = 0.25  # share of its way that preference has gone back
RESTS = 0.05  # share of its way that a doubled strength still moves it
Losses = Callable[[float], NDArray[np.float64]]
PROBE_PAIRS = 8
PROBES = tuple(2.0**k for k in range(-4, 10))


def sweep_factors(
    model: CausalLM, tokenizer: Tokenizer, pairs: Sequence[PreferencePair], artifact: SteeringArtifact, points: int
) -> NDArray[np.float64]:
    """`points` strengths to sweep, 0 among them: as many on each side, each as far out as its curves have more to tell.

    A change has its own scale, so each side is tried outwards on a few of the pairs, by powers of two from 1/16 (see
    `end_of_side`).

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
        lowest, highest = (end_of_side(losses, sign) for sign in (-1.0, 1.0))
    negative = (points - 1) // 2
    below = np.linspace(lowest, 0, negative, endpoint=False)
    return np.concatenate([below, np.linspace(0, highest, points - negative)])


def end_of_side(losses: Losses, sign: float) -> float:
    """The outermost strength of one side, of the powers of two from 1/16 to 512.

    It is the first at which mean utility has fallen by 8 nats from its highest, or at which mean preference, once it
    has moved by a nat, has gone back by a quarter of its way or is moved by less than a twentieth of its way; or the
    last where all losses are finite.

    Args:
        losses: `(2, N)` of both answers at a strength.
    """
    highest, start = _means(losses(0.0))
    path, last = [start], 0.0
    for probe in PROBES:
        m = sign * probe
        utility, preference = _means(losses(m))
        if not distributed.everywhere(math.isfinite(utility)):
            return last
        highest = max(highest, utility)
        path.append(preference)
        if not distributed.everywhere(highest - utility <= MOST_SPENT and not _ended(path)):
            return m
        last = m
    return last


def _ended(path: Sequence[float]) -> bool:
    """Whether preference, at 0 and ever larger strengths, has turned or come to rest."""
    way = max(abs(p - path[0]) for p in path)
    furthest = max(path, key=lambda p: abs(p - path[0]))
    return way > MOVED and (abs(furthest - path[-1]) > TURNED * way or abs(path[-1] - path[-2]) < RESTS * way)


def _means(losses: NDArray[np.float64]) -> tuple[float, float]:
    """Mean utility and preference, nats; NaN where a loss is not finite."""
    if not np.isfinite(losses).all():
        return math.nan, math.nan
    return float(np.nanmean(util_log_odds(*losses))), float(pref_log_odds(*losses).mean())
