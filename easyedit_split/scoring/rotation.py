"""Rotary embeddings that look at the largest position of a call: each row is rotated as it is alone.

LongRoPE (Phi-3) takes other factors once a call holds a position beyond a limit, and dynamic NTK other ones for every
length beyond it. Then a short text beside a long one is rotated as if it were long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..models.parts import decoder
from ..models.protocols import CausalLM

_DEPENDS_ON_LENGTH = ("longrope", "dynamic")


@contextmanager
def rows_rotated_alone(model: CausalLM) -> Iterator[None]:
    """Inside, each row of a call is rotated as in a call of its own."""
    with ExitStack() as stack:
        for module in decoder(model).modules():
            if _depends_on_length(module):
                stack.callback(module.register_forward_hook(_each_row_alone, with_kwargs=True).remove)
        yield


def _depends_on_length(module: nn.Module) -> bool:
    kinds = getattr(module, "rope_type", ())
    kinds = kinds.values() if isinstance(kinds, dict) else (kinds,)
    return any(kind in _DEPENDS_ON_LENGTH for kind in kinds)


def _each_row_alone(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """The rotary embedding's output `(R, T, ...)`, or several of them, made row by row."""
    named = {**dict(zip(("x", "position_ids"), args, strict=False)), **kwargs}
    x, positions = named.pop("x")[:1], named.pop("position_ids")
    rows = []
    for row in positions:
        module.forward(x, torch.zeros_like(row[None, :1]), **named)  # dynamic NTK remembers a longer text until then
        rows.append(module.forward(x, row[None], **named))
    if isinstance(output, Tensor):
        return torch.cat(rows)
    return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
