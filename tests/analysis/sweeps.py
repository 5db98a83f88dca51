"""Sweeps drawn from known laws, for tests of what is said of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

M = np.linspace(-20.0, 20.0, 41)


def sweep(seed: int = 0, undefined: int = 0, scale: float = 30.0):
    """20 pairs at 41 strengths; `undefined` of them have no utility."""
    rng = np.random.default_rng(seed)
    preference = (0.5 * M / (1 + M**2 / scale))[:, None] + rng.normal(size=20) + 0.05 * rng.normal(size=(41, 20))
    utility = (10 / (1 + M**2 / 100) - 12)[:, None] + rng.normal(size=20) + 0.05 * rng.normal(size=(41, 20))
    log_p = -np.logaddexp(0.0, -utility)
    pos, neg = np.logaddexp(0.0, -preference) - log_p, np.logaddexp(0.0, preference) - log_p
    pos[:, :undefined] = neg[:, :undefined] = 0.2
    return SimpleNamespace(factors=M, loss_pos=pos, loss_neg=neg, reduction="mean", header={})
