"""Answer losses of pairs under a change: the hot core (paper, Eq. 28).

`PairScorer` holds encoded pairs and scores any of them at any strength. Both answers of a pair share one row and
their prompt's computation; what lies below the steered layer is computed once (`PrefixStore`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..changes.attach import Handle, handles_on
from ..data.tokens import EncodedPair
from ..errors import ConfigError, DataError
from ..models.block_output import adds_to_stream
from ..models.guards import eval_mode_frozen
from ..models.parts import embedding_device, unwrap
from ..models.protocols import CausalLM
from .forward import run_rows
from .memory import memory_for
from .prefix_reuse import PrefixStore, prefix_store
from .probe import rows_can_be_shared, states_can_be_kept
from .rows import Batch, lay_out, row_length
from .token_losses import Scratch, token_losses

T = TypeVar("T")
Reuse = Literal["block", "below", "nothing"]


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
        handle: what steers every call of `losses`; its dial is turned between them. None: the model as it is.
        reuse: what runs once a pair: with `"block"` the blocks below the handle's (lowest) layer and, where the change
            only adds to its output, that layer's block; with `"below"` the former alone, for a handle that does more
            than add.
        packed: both answers in one row. None: where that gives the model's own losses, which is measured.

    Raises:
        SiteError: nothing here gives the model's own losses (see `probe`).
    """

    def __init__(
        self,
        model: CausalLM,
        pairs: Sequence[EncodedPair],
        handle: Handle | None = None,
        *,
        reuse: Reuse = "block",
        packed: bool | None = None,
    ) -> None:
        self.model, self.pairs, self.handle = model, list(pairs), handle
        self.packed = rows_can_be_shared(model, self.pairs) if packed is None else packed
        if handle is not None and reuse != "nothing" and packed is None:
            below = handle.site.site.layer + (reuse == "block")
            reuse = reuse if below == 0 or states_can_be_kept(model, below, self.packed) else "nothing"
        rows = 1 if self.packed else 2
        lengths = [row_length(p, self.packed) for p in self.pairs for _ in range(rows)]
        self.lengths = torch.tensor(lengths[::rows])
        self._adds = handle is not None and reuse == "block" and _can_be_added(model, handle, sum(lengths))
        self.store = self._store_for(handle, lengths) if handle is not None and reuse != "nothing" else None
        self._scratch = Scratch()

    def _store_for(self, handle: Handle, lengths: Sequence[int]) -> PrefixStore | None:
        layer, key = handle.site.site.layer, (self.packed, *self.pairs)
        if self._adds:
            site = handle.site if handle.delta.form != "vector" else None
            return prefix_store(self.model, layer + 1, key, lengths, site)
        return prefix_store(self.model, layer, key, lengths) if layer else None

    def losses(self, indices: Tensor) -> PairLosses:
        """Losses of `pairs[i]` for each of `indices` `(B,)` (repeats allowed), as the handle's dial stands.

        A `(B,)` strength of the handle is one value a pair, whatever the rows.
        """
        picked, batch = self.states(indices)
        per_token = token_losses(self.model, picked, batch.targets, self._scratch)
        owner = batch.owner.to(per_token.device)
        sums = per_token.new_zeros(2 * len(indices)).index_add(0, owner, per_token)
        # of the lengths, because counting on a GPU would wait for it
        pairs = [self.pairs[i] for i in indices.tolist()]
        counts = torch.tensor([[len(p.matching), len(p.not_matching)] for p in pairs], dtype=torch.float32)
        return PairLosses(sums[0::2], sums[1::2], *counts.T.to(sums.device))

    def states(self, indices: Tensor) -> tuple[Tensor, Batch]:
        """Last hidden states `(K, d)` from which the answers' tokens of `losses` are predicted, and their batch, which
        says whose each of them is (`owner`)."""
        pairs = [self.pairs[i] for i in indices.tolist()]
        batch = lay_out(pairs, self.packed).to(embedding_device(self.model))
        with self.handle.repeated(batch.rows_per_pair) if self.handle else nullcontext():
            hidden = self._hidden(indices, batch)
        return hidden[batch.rows.to(hidden.device), batch.cols.to(hidden.device)], batch

    def _hidden(self, indices: Tensor, batch: Batch) -> Tensor:
        if self.handle is None or self.store is None:
            return run_rows(self.model, batch)
        if not self.store.filled:
            with self.handle.silenced():
                self._fill(self.store)
        states, *inputs = self.store.get(row_items(indices, batch.rows_per_pair), batch.tokens.shape[1])
        if self._adds:
            with self.handle.steer_only(batch.steered(self.handle.positions)):
                states = self.handle.steered(inputs[0] if inputs else states, states)
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


def _can_be_added(model: CausalLM, handle: Handle, positions: int) -> bool:
    """Whether the change may be added to its block's stored output, and what that takes fits in memory."""
    site = handle.site
    if sum(other.site.layer == site.site.layer for other in handle.sites) > 1:
        return False  # the block itself has to run
    width = site.d_out + (0 if handle.delta.form == "vector" else site.d_in)
    needed = positions * width * unwrap(model).dtype.itemsize
    with handle.silenced(), torch.no_grad():
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


def sequence_nll(model: CausalLM, prompt: Sequence[int], answer: Sequence[int], reduction: str) -> float:
    """`-log P(answer | prompt)` in nats for one answer, its end token included (Eq. 28), by the model's own logits.

    What is attached to the model steers the tokens that its rule of positions names.

    Args:
        reduction: `"sum"` over answer tokens, or `"mean"` (App. C.2).

    Raises:
        ConfigError: another reduction. DataError: no prompt tokens, or no answer tokens.
    """
    if reduction not in ("sum", "mean"):
        raise ConfigError(f"reduction {reduction!r} is unknown: say 'sum' or 'mean'")
    if not prompt or not answer:
        raise DataError(f"{len(prompt)} prompt and {len(answer)} answer tokens: both need at least one")
    tokens = torch.tensor([[*prompt, *answer[:-1]]])
    number = torch.arange(tokens.shape[1])
    with eval_mode_frozen(model), torch.no_grad(), ExitStack() as stack:
        for handle in handles_on(model):
            stack.enter_context(handle.steer_only(handle.positions.steers(number, len(prompt))[None]))
        logits = model(input_ids=tokens.to(embedding_device(model)), use_cache=False, return_dict=True).logits
    predicted = logits[0, len(prompt) - 1 :].float()
    return float(F.cross_entropy(predicted, torch.tensor(answer, device=predicted.device), reduction=reduction))
