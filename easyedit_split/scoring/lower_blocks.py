"""A decoder's lower blocks: run them alone, or put states in their place and run the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..models.parts import decoder_layers
from ..models.protocols import CausalLM
from ..models.sites import ResolvedSite


class _Reached(Exception):
    """Raised by the hook on the last of the blocks, to skip those above."""


class LowerBlocks:
    """The first `count` blocks (1 or more) of a model's decoder.

    With `site`, a site of the last of them, also that module's inputs are of interest.
    """

    def __init__(self, model: CausalLM, count: int, site: ResolvedSite | None = None) -> None:
        self.model, self.count, self.site = model, count, site
        self._as_tuple = False  # how the last block gives its output

    def run(self, call: Callable[[], object]) -> list[Tensor]:
        """What leaves the last of the blocks, `(R, T, d)`, and with `site` its inputs, `(R, T, d_in)`, while `call`
        runs the decoder."""
        seen: list[Tensor] = []

        def reached(module: nn.Module, args: Any, output: Any) -> None:
            self._as_tuple = isinstance(output, tuple)
            seen.insert(0, output[0] if self._as_tuple else output)
            raise _Reached

        hooks = [decoder_layers(self.model)[self.count - 1].register_forward_hook(reached)]
        if self.site is not None:
            hooks.append(self.site.module.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
        try:
            with torch.no_grad():
                call()
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    @contextmanager
    def replaced(self, states: Tensor) -> Iterator[None]:
        """Inside, the blocks are not run: `states` leave the last of them."""
        layers = decoder_layers(self.model)
        originals = [layers[i] for i in range(self.count)]
        try:
            for i, block in enumerate(originals):
                last = i == self.count - 1
                layers[i] = _StandIn(block, states if last else None, self._as_tuple)
            yield
        finally:
            for i, block in enumerate(originals):
                layers[i] = block


class _StandIn(nn.Module):
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
