"""Answer losses of pairs under a change: the hot core (paper, Eq. 28).

`PairScorer` holds encoded pairs and scores any of them at any strength. Both answers of a pair share one row and
their prompt's computation; what lies below the steered layer is computed once (`PrefixStore`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .attach import Handle
from .errors import ConfigError, DataError
from .head import token_losses
from .layout import Batch, lay_out, row_length
from .models import held_still
from .prefix import PrefixStore, run_decoder
from .sites import unwrap
from .tokens import EncodedPair


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
        packed: both answers in one row. None: yes, unless the attention implementation cannot take a prepared mask.
    """

    def __init__(
        self,
        model: Any,
        pairs: Sequence[EncodedPair],
        *,
        layer: int | None = None,
        packed: bool | None = None,
    ) -> None:
        self.model, self.pairs = model, list(pairs)
        self.packed = takes_prepared_masks(model) if packed is None else packed
        rows = 1 if self.packed else 2
        lengths = [row_length(p, self.packed) for p in self.pairs for _ in range(rows)]
        self.store = PrefixStore(model, layer, lengths) if layer else None
        self.lengths = torch.tensor(lengths[::rows])

    def losses(self, indices: Tensor, handle: Handle | None = None) -> PairLosses:
        """Losses of `pairs[i]` for each of `indices` `(B,)` (repeats allowed), as steered by `handle`.

        A `(B,)` strength of the handle is one value a pair, whatever the rows.
        """
        pairs = [self.pairs[i] for i in indices.tolist()]
        device = embedding_device(self.model)
        batch = lay_out(pairs, self.packed).to(device)
        hidden = self._hidden(indices, batch, handle)
        picked = hidden[batch.rows.to(hidden.device), batch.cols.to(hidden.device)]
        owner = batch.owner.to(hidden.device)
        per_token = token_losses(self.model, picked, batch.targets.to(hidden.device))
        sums = per_token.new_zeros(2 * len(pairs)).index_add(0, owner, per_token)
        counts = torch.bincount(owner, minlength=2 * len(pairs)).float()
        return PairLosses(sums[0::2], sums[1::2], counts[0::2], counts[1::2])

    def prepare(self, indices: Tensor, handle: Handle | None = None) -> None:
        """Run the blocks below the site for `indices` as `losses` would at its first call, and nothing else.

        A run that is taken up again calls it for the batches it skips: rounding depends on a batch's shape.
        """
        batch = lay_out([self.pairs[i] for i in indices.tolist()], self.packed).to(embedding_device(self.model))
        if self.store is not None:
            self._remember(row_items(indices, batch.rows_per_pair), self._inputs(batch), handle)

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        config, dtype = unwrap(self.model).config, unwrap(self.model).dtype
        return {
            "input_ids": batch.tokens,
            "position_ids": batch.position_ids,
            "attention_mask": batch.attention_mask(config, dtype),
        }

    def _remember(self, items: Tensor, inputs: dict[str, Any], handle: Handle | None) -> None:
        if self.store is not None and not bool(self.store.known[items].all()):
            with handle.silenced() if handle else nullcontext():
                self.store.put(items, lambda: run_decoder(self.model, **inputs))

    def _hidden(self, indices: Tensor, batch: Batch, handle: Handle | None) -> Tensor:
        inputs = self._inputs(batch)
        if self.store is None:
            with _steering(handle, batch):
                return run_decoder(self.model, **inputs)
        items = row_items(indices, batch.rows_per_pair)
        self._remember(items, inputs, handle)
        states = self.store.get(items, batch.tokens.shape[1], batch.tokens.device)
        with self.store.replay(states), _steering(handle, batch):
            return run_decoder(self.model, **inputs)


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


def takes_prepared_masks(model: Any) -> bool:
    """Whether the model's attention accepts a four-dimensional mask."""
    return getattr(unwrap(model).config, "_attn_implementation", "eager") in ("eager", "sdpa")


def embedding_device(model: Any) -> torch.device:
    """Where input tokens go."""
    return unwrap(model).get_input_embeddings().weight.device


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
    with held_still(model), torch.no_grad():
        losses = PairScorer(model, [pair]).losses(torch.tensor([0]))
    return float(losses.matching if reduction == "sum" else losses.matching / losses.matching_tokens)
