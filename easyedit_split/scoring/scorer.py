"""Answer losses of pairs under a change: the hot core (paper, Eq. 28).

`PairScorer` holds encoded pairs and scores any of them at any strength. Both answers of a pair share one row and
their prompt's computation; what lies below the steered layer is computed once (`PrefixStore`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..changes.attach import Handle
from ..data.tokens import EncodedPair
from ..errors import ConfigError, DataError
from ..models.guards import eval_mode_frozen
from ..models.parts import embedding_device, unwrap
from ..models.stream import adds_to_stream
from .forward import run_rows
from .prefix_store import PrefixStore, memory_for, prefix_store
from .probe import rows_can_be_shared
from .rows import Batch, lay_out, row_length
from .token_losses import Scratch, token_losses

T = TypeVar("T")


@dataclass(frozen=True)
class PairLosses:
    """Summed losses in nats, `(B,)` float32, of both answers, and their token counts."""

    matching: Tensor
    not_matching: Tensor
    matching_tokens: Tensor
    not_matching_tokens: Tensor

    def __getitem__(self, rows: Tensor) -> PairLosses:
        return PairLosses(*(values[rows.to(values.device)] for values in vars(self).values()))


def joined(parts: Sequence[PairLosses]) -> PairLosses:
    """Batches of losses, one after the other."""
    return PairLosses(*(torch.cat(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True)))


class PairScorer:
    """Scores pairs, again and again.

    Args:
        model: a Hugging Face causal language model.
        pairs: the encoded pairs; they are addressed by index from here on.
        layer: the steered layer; blocks below it run once a pair. None: no reuse.
        change: what steers that layer in every call of `losses`. Where it only adds to its block's output, the block
            runs once a pair, too. None: it is not known, or does more than that.
        packed: both answers in one row. None: where that gives the model's own losses, which is measured.

    Raises:
        SiteError: nothing here gives the model's own losses (see `probe`).
    """

    def __init__(
        self,
        model: Any,
        pairs: Sequence[EncodedPair],
        *,
        layer: int | None = None,
        change: Handle | None = None,
        packed: bool | None = None,
    ) -> None:
        self.model, self.pairs = model, list(pairs)
        self.packed = rows_can_be_shared(model) if packed is None else packed
        rows = 1 if self.packed else 2
        lengths = [row_length(p, self.packed) for p in self.pairs for _ in range(rows)]
        self.lengths = torch.tensor(lengths[::rows])
        self.store: PrefixStore | None = None
        key = (self.packed, *self.pairs)
        self._adds = change is not None and _can_be_added(model, change, sum(lengths))
        if change is not None and self._adds:
            site = change.site if change.delta.form != "vector" else None
            self.store = prefix_store(model, change.site.site.layer + 1, key, lengths, site)
        elif layer:
            self.store = prefix_store(model, layer, key, lengths)
        self._scratch = Scratch()

    def losses(self, indices: Tensor, handle: Handle | None = None) -> PairLosses:
        """Losses of `pairs[i]` for each of `indices` `(B,)` (repeats allowed), as steered by `handle`.

        A `(B,)` strength of the handle is one value a pair, whatever the rows.
        """
        pairs = [self.pairs[i] for i in indices.tolist()]
        device = embedding_device(self.model)
        batch = lay_out(pairs, self.packed).to(device)
        hidden = self._hidden(indices, batch, handle)
        picked = hidden[batch.rows.to(hidden.device), batch.cols.to(hidden.device)]
        per_token = token_losses(self.model, picked, batch.targets, self._scratch)
        owner = batch.owner.to(per_token.device)
        sums = per_token.new_zeros(2 * len(pairs)).index_add(0, owner, per_token)
        # of the lengths, because counting on a GPU would wait for it
        counts = torch.tensor([[len(p.matching), len(p.not_matching)] for p in pairs], dtype=torch.float32)
        return PairLosses(sums[0::2], sums[1::2], *counts.T.to(sums.device))

    def _hidden(self, indices: Tensor, batch: Batch, handle: Handle | None) -> Tensor:
        if self.store is None:
            with _steering(handle, batch):
                return run_rows(self.model, batch)
        if not self.store.filled:
            with handle.silenced() if handle else nullcontext():
                self._fill(self.store)
        items, width = row_items(indices, batch.rows_per_pair), batch.tokens.shape[1]
        with _steering(handle, batch):
            if self._adds:
                if handle is None:
                    raise ConfigError("this scorer was made for a change: pass its handle, silenced for no steering")
                states, *inputs = self.store.get(items, width)
                states = handle.steered(inputs[0] if inputs else states, states)
            else:
                states = self.store.get(items, width)[0]
            with self.store.replay(states):
                return run_rows(self.model, batch)

    def _fill(self, store: PrefixStore) -> None:
        """Run the lower blocks for every pair, in an order that does not depend on who asks first: rounding depends on
        a batch's shape, and a run that is taken up again must see the same states."""
        device = embedding_device(self.model)
        order = self.lengths.argsort(stable=True)

        def fill(indices: Tensor) -> None:
            batch = lay_out([self.pairs[i] for i in indices.tolist()], self.packed).to(device)
            store.put(row_items(indices, batch.rows_per_pair), partial(run_rows, self.model, batch))

        for run in token_runs(self.lengths[order], device):
            halve_on_oom(fill, order[run])
        store.filled = True


def _can_be_added(model: Any, change: Handle, positions: int) -> bool:
    """Whether the change may be added to its block's stored output, and what that takes fits in memory."""
    site = change.site
    width = site.d_out + (0 if change.delta.form == "vector" else site.d_in)
    needed = positions * width * unwrap(model).dtype.itemsize
    with change.silenced(), torch.no_grad():
        return needed <= memory_for(embedding_device(model)) and adds_to_stream(model, site)


def halve_on_oom(work: Callable[[Tensor], T], items: Tensor) -> list[T]:
    """`[work(items)]`; where that does not fit in memory, the same for each half of `items`.

    Raises:
        torch.OutOfMemoryError: a single item does not fit.
    """
    try:
        return [work(items)]
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    middle = len(items) // 2
    return [*halve_on_oom(work, items[:middle]), *halve_on_oom(work, items[middle:])]


def token_runs(lengths: Tensor, device: torch.device) -> Iterator[slice]:
    """Ascending row `lengths`, cut in runs of about as many tokens (padding included) as `device` works well with."""
    budget = 1024 if device.type == "cpu" else 65536
    start = 0
    while start < len(lengths):
        size = max(1, budget // int(lengths[start]))
        longest = int(lengths[min(start + size, len(lengths)) - 1])
        run = slice(start, start + max(1, budget // longest))
        yield run
        start = run.stop


def row_items(indices: Tensor, rows_per_pair: int) -> Tensor:
    """Row numbers of pairs: row `r` of pair `i` is `rows_per_pair * i + r`."""
    return (indices[:, None] * rows_per_pair + torch.arange(rows_per_pair)).flatten()


@contextmanager
def _steering(handle: Handle | None, batch: Batch) -> Iterator[None]:
    if handle is None:
        yield
        return
    with handle.steer_only(batch.steered(handle.positions)), handle.repeated(batch.rows_per_pair):
        yield


def sequence_nll(model: Any, prompt: Sequence[int], answer: Sequence[int], reduction: str) -> float:
    """`-log P(answer | prompt)` in nats for one answer, its end token included (Eq. 28).

    Args:
        reduction: `"sum"` over answer tokens, or `"mean"` (App. C.2).

    Raises:
        ConfigError: another reduction. DataError: no prompt tokens, or no answer tokens.
    """
    if reduction not in ("sum", "mean"):
        raise ConfigError(f"reduction {reduction!r} is unknown: say 'sum' or 'mean'")
    if not prompt or not answer:
        raise DataError(f"{len(prompt)} prompt and {len(answer)} answer tokens: both need at least one")
    pair = EncodedPair(tuple(prompt), tuple(answer), tuple(answer))
    with eval_mode_frozen(model), torch.no_grad():
        losses = PairScorer(model, [pair]).losses(torch.tensor([0]))
    return float(losses.matching if reduction == "sum" else losses.matching / losses.matching_tokens)
