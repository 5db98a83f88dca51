"""Which token positions a change acts on: `all`, `answer`, or every one `after_prefix`.

`all` is how the equations are written. `answer` are the positions whose next token is an answer token: the prompt's
last and all answer tokens; in generation, the last position of the prefill and every new token. `after_prefix` is
every position but the chat template's constant prefix (EasyEdit's `exclude_bos`). Padding is never steered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, nearest

RULES = ("all", "answer", "after_prefix")


@dataclass(frozen=True)
class Positions:
    """A rule, and for `after_prefix` the number of leading tokens left alone."""

    rule: str = "all"
    prefix: int = 0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"unknown positions {self.rule!r}{nearest(str(self.rule), RULES)}")
        if self.prefix < 0:
            raise ConfigError(f"prefix {self.prefix} is negative: give a number of tokens, 0 or more")

    def mask(self, length: int, padding: Tensor | None, past: int, position_ids: Tensor | None = None) -> Tensor | None:
        """Positions to steer in one forward call.

        Args:
            length: number of tokens T of the call.
            padding: `(B, past + T)`, nonzero at real tokens; None where nothing is padded.
            past: tokens already in the cache.
            position_ids: `(B or 1, T)`, counting real tokens; read where `padding` is not known (static caches).

        Returns:
            `(B or 1, T)` bool, or None where every position of the call is steered.
        """
        decoding = length == 1 and past > 0
        if self.rule == "after_prefix":
            return self._after_prefix(length, padding, past, position_ids)
        if decoding or (self.rule == "all" and padding is None):
            return None
        if padding is None:
            last = torch.zeros(1, length, dtype=torch.bool)
            last[0, -1] = True
            return last
        real = padding[:, -length:].bool()
        if self.rule == "all":
            return real
        index = torch.arange(length, device=real.device)
        return index == (real * (index + 1)).argmax(dim=1, keepdim=True)

    def _after_prefix(
        self, length: int, padding: Tensor | None, past: int, position_ids: Tensor | None
    ) -> Tensor | None:
        if padding is None and position_ids is not None:
            return position_ids >= self.prefix
        if padding is None:
            return None if past >= self.prefix else (past + torch.arange(length) >= self.prefix)[None]
        order = padding.long().cumsum(dim=1)[:, -length:] - 1
        return (order >= self.prefix) & padding[:, -length:].bool()


def mask_of_call(positions: Positions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """`Positions.mask` for the arguments of a decoder's forward call."""
    tokens = kwargs.get("input_ids")
    if tokens is None:
        tokens = kwargs.get("inputs_embeds")
    if tokens is None:
        tokens = args[0]
    cache = kwargs.get("past_key_values")
    past = int(cache.get_seq_length()) if cache is not None else 0
    padding = kwargs.get("attention_mask")
    if not isinstance(padding, Tensor) or padding.ndim != 2:
        padding = None
    return positions.mask(tokens.shape[1], padding, past, kwargs.get("position_ids"))
