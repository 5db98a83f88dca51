"""A dial on one module of vLLM's model: what it puts out, plus `m1[token] dW x + m2[token] db`, in place (Eq. 4).

It is a custom operator, so that torch.compile does not look inside and CUDA graphs can hold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .strengths import Strengths

ATTRIBUTE = "easyedit_split_steering"  # on vLLM's model: its `Steering`
_DIALS: list[Dial] = []  # an operator's arguments are tensors and numbers, so it is told its dial by number


@dataclass(frozen=True)
class Added:
    """One artifact's part in this process: `tensors` (`A`, `B`, `dW` in the model's dtype, `db` in float32) and the
    output `rows` they are added to."""

    artifact: int
    rows: slice
    tensors: dict[str, Tensor]

    def term(self, x: Any, values: Tensor) -> Tensor | None:
        """`m1 dW x + m2 db` in float32, `(tokens, d)`; `values` `(2, tokens)`. None: nothing is added here."""
        term = None
        if "B" in self.tensors:
            term = values[0, :, None] * F.linear(F.linear(x, self.tensors["A"]), self.tensors["B"]).float()
        elif "dW" in self.tensors:
            term = values[0, :, None] * F.linear(x, self.tensors["dW"]).float()
        if "db" in self.tensors:
            bias = values[1, :, None] * self.tensors["db"]
            term = bias if term is None else term + bias
        return term


class Dial:
    """The changes at one module, and whether the module has been run (`visited`)."""

    def __init__(self, strengths: Strengths, added: list[Added]) -> None:
        self.strengths, self.added, self.visited = strengths, added, False
        self.number = len(_DIALS)
        _DIALS.append(self)

    def turn(self, out: Tensor, x: Tensor | None) -> None:
        """Add to `out` `(tokens, d_out)` in place, for inputs `x` `(tokens, d_in)`."""
        self.visited = True
        if out.is_cpu:
            self.turn_steered(out, x)
        else:
            self.turn_all(out, x)

    def turn_steered(self, out: Tensor, x: Tensor | None) -> None:
        """Only the steered tokens, as known on the host."""
        strengths = self.strengths
        if len(out) < strengths.tokens:
            return  # a trial run of the engine, not the step that was filled
        for part in self.added:
            if part.artifact not in strengths.steered:
                continue
            tokens = strengths.steered[part.artifact]
            chosen: Any = slice(strengths.tokens) if tokens is None else tokens
            term = part.term(None if x is None else x[chosen], strengths.values[part.artifact][:, chosen])
            if term is not None:
                own = out[:, part.rows]
                own[chosen] = (own[chosen].float() + term).to(out.dtype)

    def turn_all(self, out: Tensor, x: Tensor | None) -> None:
        """Every token, without a decision on the host: can be captured in a graph. Tokens at 0 keep their bits."""
        for part in self.added:
            values = self.strengths.values[part.artifact][:, : len(out)]
            term = part.term(x, values)
            if term is not None:
                own = out[:, part.rows]
                steered = (values != 0).any(dim=0)[:, None]
                own.copy_(torch.where(steered, (own.float() + term).to(out.dtype), own))


class Steering:
    """The strengths and dials of one model in one process."""

    def __init__(self, strengths: Strengths, dials: list[Dial]) -> None:
        self.strengths, self.dials = strengths, dials
        self._checked = False

    def check_visited(self) -> None:
        """Raise RuntimeError if a step was steered and some dial's module did not run: its answers would be wrong."""
        if self._checked or not self.strengths.steered:
            return
        if not all(dial.visited for dial in self.dials):
            raise RuntimeError(
                "vLLM computed a step without running a map that is steered: this model is not supported"
            )
        self._checked = True


@torch.library.custom_op("easyedit_split::steer", mutates_args=("out",))
def _steer(out: Tensor, x: Tensor | None, dial: int) -> None:
    _DIALS[dial].turn(out, x)


@_steer.register_fake
def _(out: Tensor, x: Tensor | None, dial: int) -> None:
    return None


def apply_steered(apply: Any, dial: int, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear map's own `apply`, then its dial."""
    out = apply(layer, x, bias)
    if torch.compiler.is_compiling():
        torch.ops.easyedit_split.steer(out, x, dial)
    else:
        _DIALS[dial].turn(out, x)
    return out


def block_steered(dial: int, block: Any, arguments: Any, output: Any) -> None:
    """A hook on a decoder block. vLLM's blocks give (hidden states, residual), which the next norm adds, or one sum."""
    hidden = output[0] if isinstance(output, tuple) else output
    if torch.compiler.is_compiling():
        torch.ops.easyedit_split.steer(hidden, None, dial)
    else:
        _DIALS[dial].turn(hidden, None)
