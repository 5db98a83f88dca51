"""A change as the matrices of a LoRA adapter, `dW = B A`, for every file that holds one.

LoRA as it is; a local weight's `dW` by singular value decomposition, to a rank or to a share of its energy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..changes.change import Change
from ..changes.forms import LinearDelta
from ..changes.lowrank import LowRank, factorised
from ..errors import ConfigError, NotMergeableError

BIASES = ("refuse", "drop", "lora_bias")


@dataclass(frozen=True)
class Factors:
    """The matrices of each part, on the CPU in float32, and what was lost.

    `relative_error` is `|dW - B A| / |dW|` in the Frobenius norm over all parts, 0 for a LoRA; `energy` the share of
    `|dW|^2` kept.
    """

    parts: list[LowRank]
    relative_error: float
    energy: float

    @property
    def rank(self) -> int:
        """The largest."""
        return max(part.rank for part in self.parts)


def check_adapter(artifact: Change, m: float, bias: str) -> None:
    """Raise unless an adapter at strength `m` is this change, its `db` handled by `bias` (see `peft.to_peft`).

    Raises:
        NotMergeableError: a `db` and `bias="refuse"`, a vector without its `db`, or positions other than all.
        ConfigError: m is 0 or not finite, or `bias` is unknown.
    """
    if not isinstance(m, (int, float)) or not math.isfinite(m):
        raise ConfigError(f"m = {m!r} is not a finite number: an adapter has one strength")
    if m == 0:
        raise ConfigError("m = 0 is the unsteered model: serve that without an adapter, or choose another m")
    if bias not in BIASES:
        raise ConfigError(f"bias = {bias!r} is unknown: choose one of {', '.join(BIASES)}")
    if artifact.positions.rule != "all":
        raise NotMergeableError(
            f"the change steers positions {artifact.positions.rule!r} only, and an adapter acts on every token: "
            "attach it instead, or train with positions='all'"
        )
    if artifact.delta.bias_term() is not None and bias == "refuse":
        raise NotMergeableError(
            f"a LoRA adapter has no place for the db of form {artifact.form!r}: choose bias='lora_bias' "
            "(--lora-bias: PEFT reads it, vLLM and llama.cpp do not), bias='drop' (--without-db), or export a plain "
            "checkpoint"
        )
    if artifact.form == "vector" and bias == "drop":
        raise NotMergeableError("a vector is db alone, so nothing would be left without it: choose bias='lora_bias'")


def factors_of(artifact: Change, widths: Sequence[int | None], rank: int | None, energy: float | None) -> Factors:
    """The matrices of every part; `widths` are the input widths of their maps, which only a vector needs.

    Raises:
        ConfigError: a local weight without one of `rank` and `energy` or with a wrong one, another form with one, or
            a vector whose width is not known.
    """
    parts = [_factors(part, width, rank, energy) for part, width in zip(artifact.parts, widths, strict=True)]
    squares = [_square(part.delta) for part in artifact.parts]
    total = sum(squares)
    lost = sum(s * p.relative_error**2 for s, p in zip(squares, parts, strict=True)) / total if total else 0.0
    return Factors(parts, lost**0.5, 1.0 - lost)


def _factors(artifact: Change, width: int | None, rank: int | None, energy: float | None) -> LowRank:
    """`dW` as `B A`; a vector's is zero, of rank 1."""
    delta = artifact.delta
    if artifact.form == "local_weight":
        if (rank is None) == (energy is None):
            raise ConfigError("a local weight becomes a LoRA of a lower rank: give rank=, or energy= (0.99, say)")
        return factorised(delta.tensors()["dW"].cpu(), rank, energy)
    if rank is not None or energy is not None:
        raise ConfigError(f"rank and energy are for the local weight; form {artifact.form!r} is written as it is")
    if artifact.form == "lora":
        parts = delta.tensors()
        return LowRank(parts["B"].cpu(), parts["A"].cpu(), 0.0, 1.0)
    if width is None:
        raise ConfigError("a vector does not know the input width of its module: pass model=")
    return LowRank(torch.zeros(delta.d_out, 1), torch.zeros(1, width), 0.0, 1.0)


def _square(delta: LinearDelta) -> float:
    """`|dW|^2`; 0 where there is no `dW`. Of a LoRA, whose loss is 0, anything would do."""
    weight = delta.weight() if delta.form == "local_weight" else None
    return 0.0 if weight is None else float(weight.detach().double().square().sum())
