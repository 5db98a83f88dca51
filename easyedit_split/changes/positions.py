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
        after_prefix = self.rule == "after_prefix"
        if not after_prefix and length == 1 and past > 0:
            return None  # a new token is an answer's
        if padding is not None:
            real = padding.bool()
            number = real.cumsum(dim=1) - 1
            return (self.steers(number, number[:, -1:] + 1) & real)[:, -length:]
        if after_prefix and position_ids is not None:
            return self.steers(position_ids, 0)
        if self.rule == "all" or (after_prefix and past >= self.prefix):
            return None
        return self.steers(past + torch.arange(length), past + length)[None]

    def steers(self, number: Tensor, prompt: Tensor | int) -> Tensor:
        """The rule itself: whether it steers the token that is `number` (from 0) of its sequence, of which the first
        `prompt` tokens are the prompt; bool, of the shapes broadcast. Padding has no number: mask it yourself."""
        first = {"all": 0, "answer": prompt - 1, "after_prefix": self.prefix}[self.rule]
        return number >= first


def tokens_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The tokens `(B, T)`, or their embeddings `(B, T, d)`, of a decoder's forward call."""
    given = (kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args[:1])
    return next(tokens for tokens in given if tokens is not None)


def mask_of_call(positions: Positions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """`Positions.mask` for the arguments of a decoder's forward call."""
    tokens = tokens_of_call(args, kwargs)
    cache = kwargs.get("past_key_values")
    past = int(cache.get_seq_length()) if cache is not None else 0
    padding = kwargs.get("attention_mask")
    if not isinstance(padding, Tensor) or padding.ndim != 2:
        padding = None
    return positions.mask(tokens.shape[1], padding, past, kwargs.get("position_ids"))
