"""Changes as vectors in the space of `(dW, db)`: scaled, added, compared.

What comes out is another change, and keeps no strength that was found for an old one.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.identity import same_weights
from .change import Change
from .forms import LinearDelta, from_tensors
from .lowrank import factorised

C = TypeVar("C", bound="Change")


def scaled(artifact: C, factor: float) -> C:
    """The change times `factor`: attached at m it is the old one at `factor * m`.

    Raises:
        ConfigError: a factor that is not a finite number, or a result that is not finite.
    """
    if not isinstance(factor, (int, float)) or not math.isfinite(factor):
        raise ConfigError(f"factor {factor!r} is not a finite number: give one")
    keep = {"A"}  # of the two factors of a LoRA, B alone is scaled
    tensors = {k: t if k in keep else t * factor for k, t in artifact.delta.tensors().items()}
    origin = {**artifact.origin, "scaled": artifact.origin.get("scaled", 1.0) * factor}
    return _with(artifact, artifact.form, tensors, origin)


def add(first: C, second: C) -> C:
    """The sum of two changes at one site, exact.

    Equal forms keep their form; the ranks of two LoRAs add up (where that is more than the map has, the product is
    factorised again). Different forms give a local weight.

    Raises:
        ConfigError: another site, other positions, other shapes or another model.
    """
    _check_same_place(first, second)
    a, b = first.delta.tensors(), second.delta.tensors()
    if first.form == second.form == "lora":
        form, tensors = "lora", _lora_sum(a, b)
    elif first.form == second.form:
        form, tensors = first.form, {name: a[name] + b[name] for name in a}
    else:
        form, tensors = "local_weight", _dense_sum(first.delta, second.delta)
    origin: dict[str, Any] = {"sum": [first.origin, second.origin]}
    for key in ("chat", "system_prompt"):
        if key in first.origin and first.origin[key] == second.origin.get(key):
            origin[key] = first.origin[key]
    return _with(first, form, tensors, origin)


def cosine(first: Change, second: Change) -> float:
    """Cosine of the angle between two changes at one site, -1 to 1 (`dW` and `db` together as one long vector).

    Raises:
        ConfigError: another site or other shapes, or a change that is zero.
    """
    length = math.sqrt(_inner(first, first) * _inner(second, second))
    if length == 0:
        raise ConfigError("one of the two changes is zero, so it has no direction: train it first")
    return max(-1.0, min(1.0, _inner(first, second) / length))


def projection(artifact: Change, onto: Change) -> float:
    """The `c` for which `artifact` is `c` times `onto`, plus a rest at a right angle to `onto`.

    Raises:
        ConfigError: another site or other shapes, or `onto` is zero.
    """
    square = _inner(onto, onto)
    if square == 0:
        raise ConfigError("the change to project onto is zero, so it has no direction: train it first")
    return _inner(artifact, onto) / square


def _check_same_place(first: Change, second: Change) -> None:
    for what, a, b in (
        ("site", first.site, second.site),
        ("positions", first.positions, second.positions),
        ("model", _structure(first, second), _structure(second, first)),
        ("output width", first.delta.d_out, second.delta.d_out),
    ):
        if a != b:
            raise ConfigError(f"the two changes have not the same {what} ({a} and {b}): attach both instead")
    if not same_weights(first.model, second.model):
        raise ConfigError("the two changes were made for models of one shape but of other weights: they have no sum")
    if "vector" not in (first.form, second.form) and first.delta.d_in != second.delta.d_in:
        raise ConfigError(f"the two changes have input widths {first.delta.d_in} and {second.delta.d_in}")


def _structure(artifact: Change, other: Change) -> dict[str, Any]:
    keys = ("architecture", "layers", "width", "fingerprint")
    return {k: artifact.model[k] for k in keys if k in artifact.model and k in other.model}


def _inner(first: Change, second: Change) -> float:
    _check_same_place(first, second)
    total = 0.0
    a, b = first.delta.bias_term(), second.delta.bias_term()
    if a is not None and b is not None:
        total += float(a.detach().double() @ b.detach().double())
    left, right = first.delta.weight(), second.delta.weight()
    if left is not None and right is not None:
        total += float((left.detach().double() * right.detach().double()).sum())
    return total


def _lora_sum(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {"A": torch.cat([a["A"], b["A"]]), "B": torch.cat([a["B"], b["B"]], dim=1)}
    most = min(tensors["A"].shape[1], tensors["B"].shape[0])
    if len(tensors["A"]) > most:
        product = factorised(tensors["B"].double() @ tensors["A"].double(), rank=most)
        tensors = {"A": product.A, "B": product.B}
    return tensors


def _dense_sum(first: LinearDelta, second: LinearDelta) -> dict[str, Tensor]:
    weights = [w.detach() for w in (first.weight(), second.weight()) if w is not None]
    biases = [b.detach() for b in (first.bias_term(), second.bias_term()) if b is not None]
    d_weight = torch.stack(weights).sum(0)
    d_bias = torch.stack(biases).sum(0) if biases else d_weight.new_zeros(len(d_weight))
    return {"dW": d_weight, "db": d_bias}


def _with(artifact: C, form: str, tensors: dict[str, Tensor], origin: dict[str, Any]) -> C:
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise ConfigError("the result is not finite in float32: use a smaller factor")
    delta = from_tensors(form, tensors).requires_grad_(False)
    return dataclasses.replace(artifact, delta=delta, origin=origin, calibration=None)  # type: ignore[type-var]
