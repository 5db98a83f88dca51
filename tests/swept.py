"""A sweep of a change whose preference rises and whose utility falls, with noise over examples, without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.provenance import source_of
from easyedit_split.sweeps.table import SweepTable


def write_sweep(artifact: SteeringArtifact, file: Path, pairs: int = 60) -> SweepTable:
    m, rng = np.linspace(-6, 6, 25), np.random.default_rng(0)
    decay = ((1 + m**2 / 20) ** -1.5)[:, None]
    preference = (2 * m[:, None] + 1) * decay + 0.1 * rng.normal(size=pairs)
    utility = 4 * decay + 0.1 * rng.normal(size=pairs)
    s = np.log1p(np.exp(-utility))  # utility = log-odds of giving either answer, whose loss is s
    p = np.logaddexp(0, -preference) + s
    header = {"artifact": source_of(artifact), "pairs_sha256": "ab" * 32, "model": {"weights": "0123456789abcdef"}}
    table = SweepTable(m, p, p + preference, "sum", np.ones(pairs), np.ones(pairs), header)
    table.save(file)
    return table
