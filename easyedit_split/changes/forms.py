"""The change itself: `dW` and `db` of one affine map (paper, Table 1 and Eq. 5).

A delta knows neither its strength nor where it is hooked. Weights are in `nn.Linear` orientation, `(d_out, d_in)`.
Parameters are float32 masters whatever the model's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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


class Joint(LinearDelta):
    """Changes of several affine maps as one: the change of their direct sum.

    Its input and output are those of the maps side by side; `dW` is block-diagonal, `db` theirs in a row. The changes
    are `parts`, all of one form.

    Raises:
        ConfigError: fewer than two parts, or parts of several forms.
    """

    def __init__(self, parts: Sequence[LinearDelta]) -> None:
        super().__init__()
        forms = sorted({part.form for part in parts})
        if len(parts) < 2 or len(forms) > 1:
            raise ConfigError(f"{len(parts)} changes of form {' and '.join(forms) or 'none'}: join two or more of one")
        self.form = forms[0]
        self.parts = nn.ModuleList(parts)
        self.d_in, self.d_out = sum(part.d_in for part in parts), sum(part.d_out for part in parts)

    def linear_term(self, x: Tensor) -> Tensor | None:
        inputs = x.split([part.d_in for part in parts_of(self)], dim=-1)
        terms = [part.linear_term(one) for part, one in zip(parts_of(self), inputs, strict=True)]
        return _together([term for term in terms if term is not None], lambda found: torch.cat(found, dim=-1))

    def bias_term(self) -> Tensor | None:
        return _together([b for part in parts_of(self) if (b := part.bias_term()) is not None], torch.cat)

    def weight(self) -> Tensor | None:
        found = [w for part in parts_of(self) if (w := part.weight()) is not None]
        return _together(found, lambda weights: torch.block_diag(*weights))


def parts_of(delta: LinearDelta) -> tuple[LinearDelta, ...]:
    """The changes, each of one affine map, that a change consists of: itself, but for a `Joint`."""
    return tuple(delta.parts) if isinstance(delta, Joint) else (delta,)  # type: ignore[arg-type]


def _together(terms: list[Tensor], joined: Callable[[list[Tensor]], Tensor]) -> Tensor | None:
    return joined(terms) if terms else None


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
    """Rebuild a delta from `LinearDelta.tensors()` (float32). Shapes, and the number of parts, are taken from the
    tensors.

    Raises:
        ConfigError: unknown form, missing or surplus tensors, or shapes that contradict each other.
    """
    if any(name.startswith("parts.") for name in tensors):
        return Joint([from_tensors(form, part) for part in _by_part(tensors)])
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


def _by_part(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors of a `Joint`, part for part."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        number, _, own = rest.partition(".")
        if head != "parts" or "parts" in own:
            raise ConfigError(f"it holds a tensor {name!r} beside those of its parts")
        parts.setdefault(number, {})[own] = tensor
    if set(parts) != set(map(str, range(len(parts)))):
        raise ConfigError(f"its parts are numbered {', '.join(sorted(parts))}, not from 0 on")
    return [parts[str(i)] for i in range(len(parts))]
