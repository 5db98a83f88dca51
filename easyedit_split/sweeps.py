"""Losses of pairs over a grid of strengths: what every curve is computed from.

Losses are stored by example, so that curves, fits and intervals can be recomputed without a model.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ArtifactError, ConfigError
from .files import write_atomically
from .sweep_progress import SweepProgress, sweep_identity

if TYPE_CHECKING:
    from .artifact import SteeringArtifact
    from .pairs import PreferencePair

REDUCTIONS = ("sum", "mean")
_COLUMNS = ("factor", "pair", "loss_pos", "loss_neg", "tokens_pos", "tokens_neg")


@dataclass(frozen=True)
class SweepTable:
    """Losses in nats of N pairs at M strengths.

    `factors` `(M,)`; `loss_pos`, `loss_neg` `(M, N)` float64, of the matching and the not-matching answer, summed over
    answer tokens or averaged (`reduction`); `tokens_pos`, `tokens_neg` `(N,)`. `header` says what was measured.
    """

    factors: np.ndarray
    loss_pos: np.ndarray
    loss_neg: np.ndarray
    reduction: str
    tokens_pos: np.ndarray
    tokens_neg: np.ndarray
    header: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise ConfigError(f"reduction {self.reduction!r} is unknown: say 'sum' or 'mean'")
        shape = (len(self.factors), len(self.tokens_pos))
        if self.loss_pos.shape != shape or self.loss_neg.shape != shape or len(self.tokens_neg) != shape[1]:
            raise ArtifactError(f"a sweep of {shape[0]} strengths and {shape[1]} pairs needs losses of shape {shape}")

    def preference(self) -> np.ndarray:
        """Preference log-odds (Eq. 7), `(M, N)`."""
        from .analysis.logodds import pref_log_odds

        return pref_log_odds(self.loss_pos, self.loss_neg)

    def utility(self) -> np.ndarray:
        """Utility log-odds (Eq. 8), `(M, N)`; NaN where undefined (possible with means)."""
        from .analysis.logodds import util_log_odds

        return util_log_odds(self.loss_pos, self.loss_neg)

    def reduced(self, reduction: str) -> SweepTable:
        """The same losses in another reduction: `"sum"` or `"mean"` over answer tokens."""
        if reduction == self.reduction:
            return self
        to_mean = reduction == "mean"
        scale = [1 / n if to_mean else n for n in (self.tokens_pos, self.tokens_neg)]
        return replace(self, reduction=reduction, loss_pos=self.loss_pos * scale[0], loss_neg=self.loss_neg * scale[1])

    def save(self, path: str | Path) -> Path:
        """Write a Parquet file, one row a strength and pair, atomically."""
        import pyarrow
        import pyarrow.parquet

        m, n = self.loss_pos.shape
        columns = {
            "factor": np.repeat(self.factors, n), "pair": np.tile(np.arange(n), m),
            "loss_pos": self.loss_pos.ravel(), "loss_neg": self.loss_neg.ravel(),
            "tokens_pos": np.tile(self.tokens_pos, m), "tokens_neg": np.tile(self.tokens_neg, m),
        }  # fmt: skip
        header = json.dumps({"reduction": self.reduction, "header": self.header}, sort_keys=True)
        known = {"easyedit_split": header, "sha256": _checksum(header, columns)}
        table = pyarrow.table(columns).replace_schema_metadata(known)
        return write_atomically(path, lambda temporary: pyarrow.parquet.write_table(table, temporary))

    @classmethod
    def load(cls, path: str | Path) -> SweepTable:
        """Read a file written by `save`.

        Raises:
            ArtifactError: missing, broken, or not a sweep.
        """
        import pyarrow
        import pyarrow.parquet

        if not Path(path).is_file():
            raise ArtifactError(f"{path} does not exist: check the path")
        try:
            table = pyarrow.parquet.read_table(path)
            metadata = table.schema.metadata or {}
            text = metadata[b"easyedit_split"].decode()
            described = json.loads(text)
            columns = {name: table.column(name).to_numpy() for name in _COLUMNS}
            if metadata.get(b"sha256", b"").decode() != _checksum(text, columns):
                raise ValueError("its content is not what was written: the checksum differs")
            n = int(columns["pair"].max()) + 1
            grid = {k: v.reshape(-1, n) for k, v in columns.items()}
            if not (grid["pair"] == np.arange(n)).all() or not (grid["factor"] == grid["factor"][:, :1]).all():
                raise ValueError("its rows are not a whole grid")
            header = dict(described["header"])
            reduction = described["reduction"]
        except (pyarrow.ArrowException, KeyError, ValueError, TypeError, OSError, OverflowError) as error:
            reason = str(error).split("\n")[0]
            raise ArtifactError(f"{path} is not a sweep that can be read ({reason}): run sweep again") from None
        tokens = grid["tokens_pos"][0], grid["tokens_neg"][0]
        return cls(grid["factor"][:, 0], grid["loss_pos"], grid["loss_neg"], reduction, *tokens, header)


def _checksum(text: str, columns: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in _COLUMNS:
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()


def sweep(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[PreferencePair],
    artifact: SteeringArtifact,
    factors: Any,
    reduction: str,
    *,
    chat: bool | None = None,
    progress: bool = False,
    partial: str | Path | None = None,
    partial_seconds: float = 20.0,
) -> SweepTable:
    """Score `pairs` at every strength of `factors` `(M,)`.

    Several strengths share a batch, pairs are sorted by length, and the layers below the site run once. A batch that
    does not fit in memory is halved and tried again.

    Args:
        chat: use the chat template; None: as in training.
        partial: a file: finished batches are written there, at most every `partial_seconds`, and a sweep that was
            killed goes on from there, to the same table bit for bit. Delete it once the table is saved.

    Raises:
        ConfigError: no factors, some that are not finite, an unknown reduction; or a strength at which the model
            overflows: a table never holds a loss that is not finite.
        ArtifactError: `partial` is broken, or of another sweep.
    """
    from .artifact import describe_model, versions
    from .models import context_length
    from .tokens import Encoder

    grid = _checked_factors(factors)
    if reduction not in REDUCTIONS:
        raise ConfigError(f"reduction {reduction!r} is unknown: say 'sum' or 'mean'")
    use_chat = artifact.origin.get("chat", True) if chat is None else chat
    encoder = Encoder(tokenizer, use_chat, artifact.origin.get("system_prompt", ""))
    encoded = encoder.pairs(pairs, context_length(model))
    header = {
        "artifact": {"form": artifact.form, "site": str(artifact.site), "origin": artifact.origin},
        "model": describe_model(model), "pairs": len(pairs), "end_token": encoder.end_id, "versions": versions(),
        "device": str(model.device), "dtype": str(model.dtype).removeprefix("torch."),
    }  # fmt: skip
    run = sweep_identity(artifact, model, encoded, grid, header) if partial else ""
    losses = _grid_losses(model, encoded, artifact, grid, progress, SweepProgress(partial, run, partial_seconds))
    tokens = [
        np.array([len(a) for a in answers], float)
        for answers in zip(*((e.matching, e.not_matching) for e in encoded), strict=True)
    ]
    return SweepTable(grid, losses[0], losses[1], "sum", tokens[0], tokens[1], header).reduced(reduction)


def _checked_factors(factors: Any) -> np.ndarray:
    try:
        grid = np.asarray(factors, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"factors = {factors!r} is no list of numbers: give one or more strengths") from None
    if grid.ndim != 1 or not len(grid):
        raise ConfigError(f"factors has shape {grid.shape}: give a list of one or more strengths")
    bad = grid[~np.isfinite(grid) | (np.abs(grid) > np.finfo(np.float32).max)]
    if len(bad):
        raise ConfigError(f"factors holds {bad[0]:g}, which is no finite number in float32: give smaller strengths")
    return grid


def _grid_losses(
    model: Any, encoded: Any, artifact: Any, grid: np.ndarray, progress: bool, saved: SweepProgress
) -> np.ndarray:
    """`(2, M, N)` summed losses."""
    import torch
    from tqdm import tqdm

    from . import distributed
    from .models import held_still
    from .scoring import PairScorer, in_halves, token_runs
    from .sites import embedding_device

    losses = np.empty((2, len(grid), len(encoded)))
    strengths, hidden = torch.from_numpy(grid).float(), not progress or distributed.rank() > 0
    with (
        held_still(model),
        artifact.attach(model, 0.0) as handle,
        torch.no_grad(),
        tqdm(total=losses[0].size, desc="sweep", unit="loss pair", disable=hidden) as bar,
    ):
        scorer = PairScorer(model, encoded, layer=artifact.site.layer, change=handle)
        order = scorer.lengths.argsort().tolist()
        cells = torch.tensor([(k, i) for i in order for k in range(len(grid))])
        batches = [cells[run] for run in token_runs(scorer.lengths[cells[:, 1]], embedding_device(model))]
        score = functools.partial(_score, scorer, handle, strengths)
        start = saved.restore(losses, batches)
        bar.update(sum(map(len, batches[:start])))
        for first in range(start, len(batches), distributed.world()):
            group = batches[first : first + distributed.world()]  # one batch a process
            mine = group[distributed.shard()][:1]
            parts = in_halves(score, mine[0]) if mine else [np.empty((2, 0))]
            part = torch.cat(group)
            scored = distributed.gather(np.concatenate(parts, axis=1), [len(b) for b in group])
            _check_finite(scored, grid[part[:, 0].numpy()], model)
            losses[:, part[:, 0].numpy(), part[:, 1].numpy()] = scored
            if distributed.rank() == 0:
                saved.batch_done(losses, batches, first + len(group))
            bar.update(len(part))
    return losses


def _check_finite(losses: np.ndarray, strengths: np.ndarray, model: Any) -> None:
    from .sites import unwrap

    bad = ~np.isfinite(losses).all(axis=0)
    if bad.any():
        raise ConfigError(
            f"the losses at m = {strengths[bad][0]:g} are not finite in {unwrap(model).dtype}: "
            "use smaller factors, or load the model in float32 or bfloat16"
        )


def _score(scorer: Any, handle: Any, strengths: Any, cells: Any) -> np.ndarray:
    """`(2, B)` losses of the cells (strength, pair)."""
    import torch

    handle.set_strength(strengths[cells[:, 0]])
    found = scorer.losses(cells[:, 1], handle)
    return torch.stack([found.matching, found.not_matching]).double().cpu().numpy()
