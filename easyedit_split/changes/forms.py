"""The change itself: `dW` and `db` of one affine map (paper, Table 1 and Eq. 5).

A delta knows neither its strength nor where it is hooked. Weights are in `nn.Linear` orientation, `(d_out, d_in)`.
Parameters are float32 masters whatever the model's dtype.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, nearest

FORMS = ("vector", "lora", "local_weight")


class LinearDelta(nn.Module):
    """A change of one affine map: `delta(x) == x @ dW.T + db`, absent terms zero.

    `x` is `(..., d_in)`, the result `(..., d_out)`. Attributes: `form`, `d_in`, `d_out`.
    """

    form: str
    d_in: int
    d_out: int

    def linear_term(self, x: Tensor) -> Tensor | None:
        """`x @ dW.T`, `(..., d_out)`, in the dtype of `x`; None where the form has no `dW`."""
        return None

    def bias_term(self) -> Tensor | None:
        """`db`, `(d_out,)`, float32; None where the form has no `db`."""
        return None

    def weight(self) -> Tensor | None:
        """`dW`, `(d_out, d_in)`, float32, written out; None where the form has no `dW`."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        linear, bias = self.linear_term(x), self.bias_term()
        if linear is None:
            if bias is None:
                return x.new_zeros(*x.shape[:-1], self.d_out)
            return bias.to(x.dtype).expand(*x.shape[:-1], self.d_out)
        return linear if bias is None else linear + bias.to(x.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """The parameters by the names of the artifact format: `db`, `dW`, `A`, `B`."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}


class Vector(LinearDelta):
    """`db` alone: a steering vector."""

    form = "vector"

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.d_in, self.d_out = d_in, d_out
        self.db = nn.Parameter(torch.zeros(d_out))

    def bias_term(self) -> Tensor:
        return self.db


class LoRA(LinearDelta):
    """`dW = B A` of rank `rank`, kept factored; no scale of its own (the strength is the scale).

    `A` is `(rank, d_in)`, drawn as PEFT draws it; `B` is `(d_out, rank)` and starts at zero.
    """

    form = "lora"

    def __init__(self, d_in: int, d_out: int, rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 1 <= rank <= min(d_in, d_out):
            raise ConfigError(f"rank {rank} is out of range for a {d_out} x {d_in} map: choose 1 to {min(d_in, d_out)}")
        self.d_in, self.d_out = d_in, d_out
        bound = 1 / math.sqrt(d_in)
        self.A = nn.Parameter((torch.rand(rank, d_in, generator=generator) * 2 - 1) * bound)
        self.B = nn.Parameter(torch.zeros(d_out, rank))

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    def linear_term(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.A.to(x.dtype)), self.B.to(x.dtype))

    def weight(self) -> Tensor:
        return self.B @ self.A


class LocalWeight(LinearDelta):
    """A full `dW` and a `db`: fine-tuning of one linear map."""

    form = "local_weight"

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.d_in, self.d_out = d_in, d_out
        self.dW = nn.Parameter(torch.zeros(d_out, d_in))
        self.db = nn.Parameter(torch.zeros(d_out))

    def linear_term(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dW.to(x.dtype))

    def bias_term(self) -> Tensor:
        return self.db

    def weight(self) -> Tensor:
        return self.dW


def make_delta(
    form: str, d_in: int, d_out: int, rank: int = 4, generator: torch.Generator | None = None
) -> LinearDelta:
    """A fresh delta of one of `FORMS`; `rank` is read by `"lora"` only.

    Raises:
        ConfigError: unknown form, or a rank that does not fit.
    """
    if form == "vector":
        return Vector(d_in, d_out)
    if form == "lora":
        return LoRA(d_in, d_out, rank, generator)
    if form == "local_weight":
        return LocalWeight(d_in, d_out)
    raise ConfigError(f"unknown form {form!r}{nearest(str(form), FORMS)}")


def from_tensors(form: str, tensors: dict[str, Tensor]) -> LinearDelta:
    """Rebuild a delta from `LinearDelta.tensors()` (float32). Shapes are taken from the tensors.

    Raises:
        ConfigError: unknown form, missing or surplus tensors, or shapes that contradict each other.
    """
    wanted = {"vector": {"db": 1}, "lora": {"A": 2, "B": 2}, "local_weight": {"dW": 2, "db": 1}}.get(form)
    if wanted is None:
        raise ConfigError(f"unknown form {form!r}{nearest(str(form), FORMS)}")
    if {name: t.ndim for name, t in tensors.items()} != wanted:
        shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        raise ConfigError(f"form {form!r} needs the tensors {', '.join(wanted)}, but the file has {shapes}")
    shape = {name: tuple(t.shape) for name, t in tensors.items()}
    fits = {
        "vector": lambda: True,
        "lora": lambda: shape["A"][0] == shape["B"][1],
        "local_weight": lambda: shape["dW"][0] == shape["db"][0],
    }
    if 0 in sum(shape.values(), ()) or not fits[form]():  # before anything is allocated
        raise ConfigError(f"tensors of shapes {shape} are no {form!r}")
    if form == "vector":
        delta: LinearDelta = Vector(len(tensors["db"]), len(tensors["db"]))
    elif form == "lora":
        delta = LoRA(tensors["A"].shape[1], tensors["B"].shape[0], tensors["A"].shape[0])
    else:
        delta = LocalWeight(tensors["dW"].shape[1], tensors["dW"].shape[0])
    with torch.no_grad():
        for name, parameter in delta.named_parameters():
            parameter.copy_(tensors[name])
    return delta
