"""Everything below the steered layer is constant over epochs and strengths: compute it once, replay it.

`PrefixStore` keeps the hidden states that enter a decoder block: the blocks below run once a pair. Where a change only
adds to the output of its block (`adds_to_stream`), that block is one of those below. Under `shared_prefixes` the store
of the same model, layer and pairs is the same for all who ask.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from ..models.parts import embedding_device, hidden_size, unwrap
from ..models.protocols import CausalLM
from ..models.sites import ResolvedSite
from .lower_blocks import LowerBlocks
from .memory import memory_for, zeros_somewhere
from .probe import probed_once

_POOL: ContextVar[dict[Hashable, PrefixStore] | None] = ContextVar("pool", default=None)


class PrefixStore:
    """Hidden states entering block `layer` (from 1; their number: the last norm), `lengths[i]` positions for item i.

    With `site`, a site of the block before, also that module's inputs: what a change adds to the states is made of
    them (see `adds_to_stream`).
    """

    def __init__(self, model: CausalLM, layer: int, lengths: Sequence[int], site: ResolvedSite | None = None) -> None:
        self.layer = layer
        self.filled = False
        self._blocks = LowerBlocks(model, layer, site)
        self._lengths = torch.tensor(lengths)
        self._starts = self._lengths.cumsum(0) - self._lengths
        self._positions = int(self._lengths.sum())
        width = hidden_size(model) + (site.d_in if site else 0)
        self.nbytes = self._positions * width * unwrap(model).dtype.itemsize
        self._flat: list[Tensor] = []
        self._devices: list[torch.device] = []

    def put(self, items: Tensor, call: Callable[[], object]) -> None:
        """Store what `items` (indices) need: `call()` runs the decoder on their rows, in that order."""
        seen = self._blocks.run(call)
        if not self._flat:
            self._flat = [zeros_somewhere(self._positions, tensor) for tensor in seen]
            self._devices = [tensor.device for tensor in seen]
        for flat, tensor in zip(self._flat, seen, strict=True):
            tensor = tensor.unflatten(0, (len(items), -1)) if tensor.ndim == 2 else tensor  # OPT's rows, one by one
            for row, item in enumerate(items.tolist()):
                start, length = int(self._starts[item]), int(self._lengths[item])
                flat[start : start + length] = tensor[row, :length].to(flat.device)

    def get(self, items: Tensor, width: int) -> list[Tensor]:
        """States of `items`, `(len(items), width, d)`, and with `site` its inputs, `(len(items), width, d_in)`, each on
        the device where it arose.

        Positions past an item's length hold zeros: what is not a number would spread through attention in spite of the
        mask.
        """
        lengths, columns = self._lengths[items][:, None], torch.arange(width)
        index = (self._starts[items][:, None] + columns).clamp_max_(self._positions - 1)
        found = [flat[index.to(flat.device)].to(device) for flat, device in zip(self._flat, self._devices, strict=True)]
        past = columns >= lengths
        if bool(past.any()):
            found = [states.masked_fill_(past.to(states.device)[..., None], 0.0) for states in found]
        return found

    def replay(self, states: Tensor) -> AbstractContextManager[None]:
        """Inside, the decoder's blocks below `layer` return `states`."""
        return self._blocks.replaced(states)


@contextmanager
def shared_prefixes() -> Iterator[None]:
    """Inside, training, sweeps and evaluation of the same pairs at the same layer share their hidden states.

    For a caller who knows that the model, and what else is attached up to that layer, stays the same meanwhile. The
    stores are kept until the end; the oldest are given up where all together would hold more than `memory_for` allows.
    """
    if _POOL.get() is not None:  # the caller's caller shares them already
        yield
        return
    token = _POOL.set({})
    try:
        with probed_once():
            yield
    finally:
        _POOL.reset(token)


def prefix_store(
    model: CausalLM, layer: int, pairs: Hashable, lengths: Sequence[int], site: ResolvedSite | None = None
) -> PrefixStore:
    """A store for `pairs`: a new one, or under `shared_prefixes` the one that another scorer of them uses."""
    pool, key = _POOL.get(), (id(model), layer, site and site.site, pairs)
    if pool is None:
        return PrefixStore(model, layer, lengths, site)
    store = pool.pop(key, None) or PrefixStore(model, layer, lengths, site)
    most = memory_for(embedding_device(model))
    while pool and store.nbytes + sum(other.nbytes for other in pool.values()) > most:
        del pool[next(iter(pool))]
    pool[key] = store
    return store
