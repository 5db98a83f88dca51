"""Everything below the steered layer is constant over epochs and strengths: compute it once, replay it.

`PrefixStore` keeps the hidden states that enter a decoder block, one run of the blocks below a pair, on the model's
device, in main memory or in a memory-mapped file, whichever holds them. Where a change only adds to the output of its
block (`adds_to_stream`), that block is one of those below. `replay` runs the decoder with those blocks standing in for
themselves by returning the states. Under `shared_prefixes` the store of the same model, layer and pairs is the same for
all who ask.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..models.parts import decoder_layers, embedding_device, hidden_size, unwrap
from ..models.sites import ResolvedSite

DEVICE_SHARE, HOST_BYTES = 0.25, 8 << 30
_POOL: ContextVar[dict[Hashable, PrefixStore] | None] = ContextVar("pool", default=None)


class _Reached(Exception):
    """Raised by the hook on the last block that is stored, to skip those above."""


class _StandInBlock(nn.Module):
    """Stands in for a block: returns `states`, or what came in; other attributes are the block's own."""

    def __init__(self, block: nn.Module, states: Tensor | None, as_tuple: bool) -> None:
        super().__init__()
        self._block = [block]
        self._states, self._as_tuple = states, as_tuple

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._block[0], name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        states = hidden_states if self._states is None else self._states
        return (states,) if self._as_tuple else states


class PrefixStore:
    """Hidden states entering block `layer` (from 1; their number: the last norm), `lengths[i]` positions for item i.

    With `site`, a site of the block before, also that module's inputs: what a change adds to the states is made of
    them (see `adds_to_stream`).
    """

    def __init__(self, model: Any, layer: int, lengths: Sequence[int], site: ResolvedSite | None = None) -> None:
        self.model, self.layer, self.site = model, layer, site
        self.lengths = torch.tensor(lengths)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.filled = False
        width = hidden_size(model) + (site.d_in if site else 0)
        self.nbytes = int(self.lengths.sum()) * width * unwrap(model).dtype.itemsize
        self._flat: list[Tensor] = []
        self._devices: list[torch.device] = []
        self._as_tuple = False
        self._file: Any = None

    def put(self, items: Tensor, run: Any) -> None:
        """Store what `items` (indices) need: `run()` calls the decoder on their rows, in that order."""
        seen: list[Tensor] = []

        def reached(module: nn.Module, args: Any, output: Any) -> None:
            self._as_tuple = isinstance(output, tuple)
            seen.insert(0, output[0] if self._as_tuple else output)
            raise _Reached

        hooks = [decoder_layers(self.model)[self.layer - 1].register_forward_hook(reached)]
        if self.site is not None:
            hooks.append(self.site.module.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
        try:
            with torch.no_grad():
                run()
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        if not self._flat:
            self._flat = [self._storage(tensor) for tensor in seen]
            self._devices = [tensor.device for tensor in seen]
        for flat, tensor in zip(self._flat, seen, strict=True):
            for row, item in enumerate(items.tolist()):
                start, length = int(self.starts[item]), int(self.lengths[item])
                flat[start : start + length] = tensor[row, :length].to(flat.device)

    def get(self, items: Tensor, width: int) -> list[Tensor]:
        """States of `items`, `(len(items), width, d)`, and with `site` its inputs, `(len(items), width, d_in)`, each on
        the device where it arose.

        Positions past an item's length hold zeros: what is not a number would spread through attention in spite of the
        mask.
        """
        lengths, columns = self.lengths[items][:, None], torch.arange(width)
        index = (self.starts[items][:, None] + columns).clamp_max_(int(self.lengths.sum()) - 1)
        found = [flat[index.to(flat.device)].to(device) for flat, device in zip(self._flat, self._devices, strict=True)]
        past = columns >= lengths
        if bool(past.any()):
            found = [states.masked_fill_(past.to(states.device)[..., None], 0.0) for states in found]
        return found

    @contextmanager
    def replay(self, states: Tensor) -> Iterator[None]:
        """Inside, the decoder's blocks below `layer` return `states`."""
        blocks = decoder_layers(self.model)
        originals = [blocks[i] for i in range(self.layer)]
        try:
            for i, block in enumerate(originals):
                last = i == self.layer - 1
                blocks[i] = _StandInBlock(block, states if last else None, self._as_tuple)
            yield
        finally:
            for i, block in enumerate(originals):
                blocks[i] = block

    def _storage(self, like: Tensor) -> Tensor:
        shape = (int(self.lengths.sum()), like.shape[-1])
        needed = shape[0] * shape[1] * like.element_size()
        if like.is_cuda and needed <= memory_for(like.device):
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        if needed <= HOST_BYTES:
            return torch.zeros(shape, dtype=like.dtype)
        self._file = tempfile.NamedTemporaryFile(prefix="easyedit_split_")  # noqa: SIM115
        try:
            os.posix_fallocate(self._file.fileno(), 0, needed)  # a disk that fills up later would kill the process
        except OSError as error:
            raise ConfigError(
                f"{needed / 1e9:.1f} GB of hidden states fit neither in memory nor in {tempfile.gettempdir()} "
                f"({error.strerror}): use fewer pairs, or set TMPDIR to a folder with room"
            ) from None
        flat = torch.from_file(self._file.name, shared=True, size=shape[0] * shape[1], dtype=like.dtype)
        return flat.view(shape)


def memory_for(device: torch.device) -> float:
    """Bytes that a store may take of a device."""
    return DEVICE_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else HOST_BYTES


@contextmanager
def shared_prefixes() -> Iterator[None]:
    """Inside, training, sweeps and evaluation of the same pairs at the same layer share their hidden states.

    For a caller who knows that the model, and what else is attached up to that layer, stays the same meanwhile. The
    stores are kept until the end; the oldest are given up where all together would hold more than `memory_for` allows.
    """
    token = _POOL.set({})
    try:
        yield
    finally:
        _POOL.reset(token)


def prefix_store(
    model: Any, layer: int, pairs: Hashable, lengths: Sequence[int], site: ResolvedSite | None = None
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
