"""Losses of pairs over a grid of strengths, kept by example, so that curves, fits and intervals need no model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.logodds import pref_log_odds, util_log_odds
from ..errors import ArtifactError, ConfigError
from ..storage.files import write_atomically

REDUCTIONS = ("sum", "mean")
_KINDS = {
    ".yaml": "a hyper-parameter file", ".yml": "a hyper-parameter file", ".jsonl": "a file of pairs or texts",
    ".json": "a JSON file", ".csv": "a table of text", ".html": "a report", ".md": "a report",
}  # fmt: skip
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

    @property
    def settings_id(self) -> str:
        """The sweep's settings in 8 letters: model, pairs, how they were put, strengths (of a refined
        sweep those it set out with, of one that finds its own how many), reduction and precision."""
        return settings_id(self.header, self.factors, self.reduction)

    def preference(self) -> np.ndarray:
        """Preference log-odds (Eq. 7), `(M, N)`."""
        return pref_log_odds(self.loss_pos, self.loss_neg)

    def utility(self) -> np.ndarray:
        """Utility log-odds (Eq. 8), `(M, N)`; NaN where undefined (possible with means)."""
        return util_log_odds(self.loss_pos, self.loss_neg)

    def reduced(self, reduction: str) -> SweepTable:
        """The same losses in another reduction: `"sum"` or `"mean"` over answer tokens."""
        if reduction == self.reduction:
            return self
        to_mean = reduction == "mean"
        scale = [1 / n if to_mean else n for n in (self.tokens_pos, self.tokens_neg)]
        return replace(self, reduction=reduction, loss_pos=self.loss_pos * scale[0], loss_neg=self.loss_neg * scale[1])

    def joined(self, other: SweepTable) -> SweepTable:
        """The strengths of both tables, ascending, of the same pairs; the header is this one's.

        Raises:
            ConfigError: another reduction, or answers of other lengths.
        """
        if other.reduction != self.reduction:
            raise ConfigError(f"the sweeps are of {self.reduction}s and of {other.reduction}s: reduce one first")
        for mine, theirs in ((self.tokens_pos, other.tokens_pos), (self.tokens_neg, other.tokens_neg)):
            if not np.array_equal(mine, theirs):
                raise ConfigError("the two sweeps are of other pairs (their answers' lengths differ): sweep one set")
        order = np.argsort(np.concatenate([self.factors, other.factors]), kind="stable")
        factors, pos, neg = (
            np.concatenate([getattr(self, name), getattr(other, name)])[order]
            for name in ("factors", "loss_pos", "loss_neg")
        )
        return replace(self, factors=factors, loss_pos=pos, loss_neg=neg)

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

        _check_kind(Path(path))
        try:
            table = pyarrow.parquet.read_table(path)
            metadata = table.schema.metadata or {}
            if b"easyedit_split" not in metadata:
                raise ValueError(f"a table of the columns {', '.join(table.column_names[:6])}, not written by sweep")
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


def read_sweep_header(path: str | Path) -> tuple[dict[str, Any], str]:
    """The header of a sweep and its `settings_id`.

    Raises:
        ArtifactError: see `SweepTable.load`; or it does not say what change it is of.
    """
    table = SweepTable.load(path)
    if not isinstance(table.header.get("artifact"), dict):
        return {**table.header, "artifact": {}}, table.settings_id
    return table.header, table.settings_id


def settings_id(header: dict[str, Any], factors: np.ndarray, reduction: str) -> str:
    """See `SweepTable.settings_id`; what an earlier version did not write down counts as unknown."""
    about = {key: header.get(key) for key in ("pairs", "pairs_sha256", "chat", "system_prompt", "end_token", "dtype")}
    planned = header.get("refined") or [float(m) for m in factors]
    settings = [about, model_weights(header), planned, reduction]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def model_weights(header: dict[str, Any]) -> str | None:
    """The fingerprint of the model that was swept; None where the header does not hold one."""
    model = header.get("model")
    return model.get("weights") if isinstance(model, dict) else None


def _check_kind(path: Path) -> None:
    """Say of a file that cannot be a sweep what it is."""
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder: name a file that sweep wrote")
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist: check the path")
    with path.open("rb") as file:
        start = file.read(16)
    if start[:4] == b"PAR1":
        return
    suffix = path.suffix.lower()
    kind = (
        "empty" if not start
        else "an artifact (a change, not its sweep)" if suffix == ".safetensors"
        else "a file of tensors of EasyEdit" if suffix == ".pt"
        else _KINDS.get(suffix, "no Parquet file")
    )  # fmt: skip
    raise ArtifactError(f"{path} is {kind}: give the sweep.parquet that sweep wrote, or its folder")


def _checksum(text: str, columns: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in _COLUMNS:
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()
