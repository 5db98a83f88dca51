"""Losses of pairs over a grid of strengths: what every curve is computed from.

Losses are stored by example, so that curves, fits and intervals can be recomputed without a model.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..models.protocols import CausalLM, Tokenizer
from ..storage.progress import taken_up
from .progress import SweepProgress, sweep_identity
from .table import REDUCTIONS, SweepTable

if TYPE_CHECKING:
    from torch import Tensor

    from ..changes.artifact import SteeringArtifact
    from ..data.pairs import PreferencePair
    from ..data.tokens import EncodedPair, Encoder
    from ..scoring.scorer import PairScorer


def sweep(
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    artifact: SteeringArtifact | None,
    factors: Any,
    reduction: str,
    *,
    chat: bool | None = None,
    progress: bool = False,
    partial: str | Path | None = None,
    partial_seconds: float = 20.0,
    overwrite: bool = False,
) -> SweepTable:
    """Score `pairs` at every strength of `factors` `(M,)`.

    Several strengths share a batch, pairs are sorted by length, and the layers below the site run once. A batch that
    does not fit in memory is halved and tried again.

    Args:
        artifact: the change; None: the model as it is, at strength 0.
        chat: use the chat template; None: as in training.
        partial: a file: finished batches are written there, at most every `partial_seconds`, and a sweep that was
            killed goes on from there, to the same table bit for bit. Delete it once the table is saved. Without a
            change nothing is written.
        overwrite: a `partial` of another sweep is replaced instead of refused.

    Raises:
        ConfigError: no factors, one other than 0 without a change, some that are not finite, an unknown reduction; or a
            strength at which the model overflows: a table never holds a loss that is not finite.
        ProgressError: `partial` is broken, or of another sweep.
    """
    from ..models.parts import context_length

    grid = _checked_factors(factors)
    if reduction not in REDUCTIONS:
        raise ConfigError(f"reduction {reduction!r} is unknown: say 'sum' or 'mean'")
    if artifact is None and grid.any():
        raise ConfigError(f"factors holds {grid[grid != 0][0]:g}, but there is no change to turn up: give 0 alone")
    encoded = encoder_for(tokenizer, artifact, chat).pairs(pairs, context_length(model))
    header = sweep_header(model, tokenizer, pairs, artifact, chat)
    run = sweep_identity(artifact, model, encoded, grid, header) if artifact and partial else ""
    saved = SweepProgress(partial if artifact else None, run, partial_seconds, overwrite)
    losses = _grid_losses(model, encoded, artifact, grid, progress, saved)
    tokens = [
        np.array([len(a) for a in answers], float)
        for answers in zip(*((e.matching, e.not_matching) for e in encoded), strict=True)
    ]
    return SweepTable(grid, losses[0], losses[1], "sum", tokens[0], tokens[1], header).reduced(reduction)


def sweep_header(
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    artifact: SteeringArtifact | None,
    chat: bool | None = None,
) -> dict[str, Any]:
    """What a sweep's table says of itself: the change, the model, the pairs and how they are put to it."""
    from ..changes.provenance import source_of, versions
    from ..data.pairs import pairs_hash
    from ..models.identity import describe_model, model_fingerprint

    encoder = encoder_for(tokenizer, artifact, chat)
    return {
        "artifact": source_of(artifact) if artifact else None,
        "model": {**describe_model(model), "weights": model_fingerprint(model)},
        "pairs": len(pairs), "pairs_sha256": pairs_hash(pairs), "chat": encoder.chat,
        "system_prompt": encoder.system_prompt, "end_token": encoder.end_id, "versions": versions(),
        "device": str(model.device), "dtype": str(model.dtype).removeprefix("torch."),
    }  # fmt: skip


def encoder_for(tokenizer: Tokenizer, artifact: SteeringArtifact | None, chat: bool | None = None) -> Encoder:
    """How pairs are put to the model: as in the change's training, but for what `chat` says."""
    from ..data.tokens import Encoder

    origin = artifact.origin if artifact else {}
    return Encoder(tokenizer, origin.get("chat", True) if chat is None else chat, origin.get("system_prompt", ""))


def _checked_factors(factors: Any) -> np.ndarray:
    try:
        grid = np.array(factors, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"factors = {factors!r} is no list of numbers: give one or more strengths") from None
    if grid.ndim != 1 or not len(grid):
        raise ConfigError(f"factors has shape {grid.shape}: give a list of one or more strengths")
    bad = grid[~np.isfinite(grid) | (np.abs(grid) > np.finfo(np.float32).max)]
    if len(bad):
        raise ConfigError(f"factors holds {bad[0]:g}, which is no finite number in float32: give smaller strengths")
    return grid


def _grid_losses(
    model: CausalLM,
    encoded: Sequence[EncodedPair],
    artifact: SteeringArtifact | None,
    grid: np.ndarray,
    progress: bool,
    saved: SweepProgress,
) -> np.ndarray:
    """`(2, M, N)` summed losses."""
    import torch
    from tqdm import tqdm

    from .. import distributed
    from ..models.guards import eval_mode_frozen
    from ..models.parts import embedding_device
    from ..scoring.scorer import PairScorer, halve_on_oom, token_runs

    losses = np.empty((2, len(grid), len(encoded)))
    strengths, hidden = torch.from_numpy(grid).float(), not progress or distributed.rank() > 0
    with (
        eval_mode_frozen(model),
        artifact.attach(model, 0.0) if artifact else nullcontext() as handle,
        torch.no_grad(),
        tqdm(total=losses[0].size, desc="sweep", unit="loss pair", disable=hidden) as bar,
    ):
        scorer = PairScorer(model, encoded, handle)
        order = scorer.lengths.argsort().tolist()
        cells = torch.tensor([(k, i) for i in order for k in range(len(grid))])
        batches = [cells[run] for run in token_runs(scorer.lengths[cells[:, 1]], embedding_device(model))]
        score = functools.partial(_score, scorer, strengths)
        with taken_up():
            start = saved.restore(losses, batches)
        bar.update(sum(map(len, batches[:start])))
        for first in range(start, len(batches), distributed.world()):
            group = batches[first : first + distributed.world()]  # one batch a process
            mine = group[distributed.shard()][:1]
            parts = halve_on_oom(score, mine[0]) if mine else [np.empty((2, 0))]
            part = torch.cat(group)
            scored = distributed.gather(np.concatenate(parts, axis=1), [len(b) for b in group])
            check_finite(scored, grid[part[:, 0].numpy()], model)
            losses[:, part[:, 0].numpy(), part[:, 1].numpy()] = scored
            if distributed.rank() == 0:
                saved.batch_done(losses, batches, first + len(group))
            bar.update(len(part))
    return losses


def check_finite(losses: np.ndarray, strengths: np.ndarray, model: CausalLM) -> None:
    """Raise `ConfigError` where one of `losses` `(2, B)`, at `strengths` `(B,)`, is not finite."""
    from ..models.parts import unwrap

    bad = ~np.isfinite(losses).all(axis=0)
    if bad.any():
        raise ConfigError(
            f"the losses at m = {strengths[bad][0]:g} are not finite in {unwrap(model).dtype}: "
            "use smaller factors, or load the model in float32 or bfloat16"
        )


def _score(scorer: PairScorer, strengths: Tensor, cells: Tensor) -> np.ndarray:
    """`(2, B)` losses of the cells (strength, pair)."""
    import torch

    if scorer.handle:
        scorer.handle.set_strength(strengths[cells[:, 0]])
    found = scorer.losses(cells[:, 1])
    return torch.stack([found.matching, found.not_matching]).double().cpu().numpy()
