"""Everything below the steered layer is constant over epochs and strengths: compute it once, replay it.

`PrefixStore` keeps the hidden states that enter decoder block `layer`, one run of the lower blocks a pair, on the
model's device, in main memory or in a memory-mapped file, whichever holds them. `replay` runs the decoder with the
lower blocks standing in for themselves by returning those states. Under `shared_prefixes` the store of the same model,
layer and pairs is the same for all who ask.
"""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from .sites import decoder, decoder_layers, hidden_size

DEVICE_SHARE, HOST_BYTES = 0.25, 8 << 30
_POOL: ContextVar[dict[Hashable, PrefixStore] | None] = ContextVar("pool", default=None)


class _Reached(Exception):
    """Raised by the capturing hook to skip the blocks above."""


class _Stand(nn.Module):
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
    """Hidden states entering block `layer` (from 1), `lengths[i]` positions for item i."""

    def __init__(self, model: Any, layer: int, lengths: Sequence[int]) -> None:
        self.model, self.layer = model, layer
        self.lengths = torch.tensor(lengths)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.filled = False
        self._states: Tensor | None = None
        self._as_tuple = False
        self._file: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of the states, once there are any."""
        return 0 if self._states is None else self._states.numel() * self._states.element_size()

    def put(self, items: Tensor, run: Any) -> None:
        """Store the states of `items` (indices): `run()` calls the decoder on their rows, in that order."""
        captured: list[Tensor] = []
        blocks = decoder_layers(self.model)

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        def shape_of_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._as_tuple = isinstance(output, tuple)

        hooks = [
            blocks[self.layer].register_forward_pre_hook(stop, with_kwargs=True),
            blocks[self.layer - 1].register_forward_hook(shape_of_output),
        ]
        try:
            with torch.no_grad():
                run()
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        states = captured[0].detach()
        flat = self._storage(states)
        for row, item in enumerate(items.tolist()):
            start, length = int(self.starts[item]), int(self.lengths[item])
            flat[start : start + length] = states[row, :length].to(flat.device)

    def get(self, items: Tensor, width: int, device: torch.device) -> Tensor:
        """States of `items`, `(len(items), width, d)`.

        Positions past an item's length hold other items' states, or zeros where those are not known yet: numbers in
        any case, because padding that is NaN would spread through attention in spite of the mask.
        """
        assert self._states is not None
        index = (self.starts[items][:, None] + torch.arange(width)).clamp_max_(len(self._states) - 1)
        return self._states[index.to(self._states.device)].to(device)

    @contextmanager
    def replay(self, states: Tensor) -> Iterator[None]:
        """Inside, the decoder's blocks below `layer` return `states`."""
        blocks = decoder_layers(self.model)
        originals = [blocks[i] for i in range(self.layer)]
        try:
            for i, block in enumerate(originals):
                last = i == self.layer - 1
                blocks[i] = _Stand(block, states if last else None, self._as_tuple)
            yield
        finally:
            for i, block in enumerate(originals):
                blocks[i] = block

    def _storage(self, like: Tensor) -> Tensor:
        if self._states is None:
            shape = (int(self.lengths.sum()), hidden_size(self.model))
            needed = shape[0] * shape[1] * like.element_size()
            if like.is_cuda and needed <= DEVICE_SHARE * torch.cuda.mem_get_info(like.device)[0]:
                self._states = torch.zeros(shape, dtype=like.dtype, device=like.device)
            elif needed <= HOST_BYTES:
                self._states = torch.zeros(shape, dtype=like.dtype)
            else:
                self._file = tempfile.NamedTemporaryFile(prefix="easyedit_split_")  # noqa: SIM115
                flat = torch.from_file(self._file.name, shared=True, size=shape[0] * shape[1], dtype=like.dtype)
                self._states = flat.view(shape)
        return self._states


@contextmanager
def shared_prefixes() -> Iterator[None]:
    """Inside, training, sweeps and evaluation of the same pairs at the same layer share their hidden states.

    For a caller who knows that the model, and what is attached below that layer, stays the same meanwhile. The stores
    are kept until the end; the oldest are given up where all together would hold more than `HOST_BYTES`.
    """
    token = _POOL.set({})
    try:
        yield
    finally:
        _POOL.reset(token)


def prefix_store(model: Any, layer: int, pairs: Hashable, lengths: Sequence[int]) -> PrefixStore:
    """A store for `pairs`: a new one, or under `shared_prefixes` the one that another scorer of them uses."""
    pool, key = _POOL.get(), (id(model), layer, pairs)
    if pool is None:
        return PrefixStore(model, layer, lengths)
    store = pool.pop(key, None) or PrefixStore(model, layer, lengths)
    while pool and store.nbytes + sum(other.nbytes for other in pool.values()) > HOST_BYTES:
        del pool[next(iter(pool))]
    pool[key] = store
    return store


def run_decoder(model: Any, **inputs: Any) -> Tensor:
    """Last hidden states `(R, T, d)`, after the final norm."""
    return decoder(model)(use_cache=False, **inputs).last_hidden_state
