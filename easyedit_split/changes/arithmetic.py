"""Changes as vectors in the space of `(dW, db)`: scaled, added, compared.

What comes out is another change, and keeps no strength that was found for an old one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.identity import same_weights
from ..models.sites import sites_of
from .change import Change
from .forms import Joint, LinearDelta, from_tensors, parts_of
from .lowrank import factorised

C = TypeVar("C", bound="Change")


def scaled(artifact: C, factor: float) -> C:
    """The change times `factor`: attached at m it is the old one at `factor * m`.

    Raises:
        ConfigError: a factor that is not a finite number, or a result that is not finite.
    """
    if not isinstance(factor, (int, float)) or not math.isfinite(factor):
        raise ConfigError(f"factor {factor!r} is not a finite number: give one")
    # of the two factors of a LoRA, B alone is scaled
    tensors = {k: t if k.endswith("A") else t * factor for k, t in artifact.delta.tensors().items()}
    origin = {**artifact.origin, "scaled": artifact.origin.get("scaled", 1.0) * factor}
    return _with(artifact, from_tensors(artifact.form, tensors), origin)


def join(artifacts: Sequence[C]) -> C:
    """Changes at different sites of one model as one change with one strength; their `parts` are again these.

    Raises:
        ConfigError: none, several forms or positions, or another model.
        SiteError: two at one site.
    """
    parts: list[Any] = [part for artifact in artifacts for part in artifact.parts]
    if not parts:
        raise ConfigError("there is no change to join: give one or more")
    parts.sort(key=lambda part: (part.site.layer, part.site.component))
    if len(parts) == 1:
        return parts[0]  # type: ignore[no-any-return]
    first, last = parts[0], parts[-1]
    for part in parts:
        _check_same_model(first, part)
        if part.positions != first.positions:
            raise ConfigError(f"the changes steer positions {first.positions} and {part.positions}: attach each")
    site = sites_of(part.site for part in parts)
    origins = [part.origin for part in parts]
    origin = first.origin if all(o == origins[0] for o in origins) else {**_shared(origins), "joined": origins}
    origin = {key: value for key, value in origin.items() if key != "part_of"}
    model = dict(last.model)  # whose weights are known up to the highest layer
    if "mlp_adds_to_stream" in model:
        model["mlp_adds_to_stream"] = all(part.model.get("mlp_adds_to_stream") for part in parts)
    delta = Joint([part.delta for part in parts]).requires_grad_(False)
    return dataclasses.replace(first, delta=delta, site=site, model=model, origin=origin, calibration=None)  # type: ignore[no-any-return]


def add(first: C, second: C) -> C:
    """The sum of two changes at one site, exact.

    Equal forms keep their form; the ranks of two LoRAs add up (where that is more than the map has, the product is
    factorised again). Different forms give a local weight.

    Raises:
        ConfigError: another site, other positions, other shapes or another model.
    """
    _check_same_place(first, second)
    sums = [_sum(a, b) for a, b in zip(parts_of(first.delta), parts_of(second.delta), strict=True)]
    origins = [first.origin, second.origin]
    return _with(first, sums[0] if len(sums) == 1 else Joint(sums), {"sum": origins, **_shared(origins)})


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
    for what, a, b in (("site", first.site, second.site), ("positions", first.positions, second.positions)):
        _check_same(what, a, b)
    _check_same_model(first, second)
    _check_same("output width", first.delta.d_out, second.delta.d_out)
    if "vector" not in (first.form, second.form) and first.delta.d_in != second.delta.d_in:
        raise ConfigError(f"the two changes have input widths {first.delta.d_in} and {second.delta.d_in}")


def _check_same(what: str, a: Any, b: Any) -> None:
    if a != b:
        raise ConfigError(f"the two changes have not the same {what} ({a} and {b}): attach both instead")


def _check_same_model(first: Change, second: Change) -> None:
    _check_same("model", _structure(first, second), _structure(second, first))
    if not same_weights(first.model, second.model):
        raise ConfigError("the two changes were made for models of one shape but of other weights: they have no sum")


def _structure(artifact: Change, other: Change) -> dict[str, Any]:
    keys = ("architecture", "layers", "width", "fingerprint")
    return {k: artifact.model[k] for k in keys if k in artifact.model and k in other.model}


def _inner(first: Change, second: Change) -> float:
    _check_same_place(first, second)
    return sum(_product(a, b) for a, b in zip(parts_of(first.delta), parts_of(second.delta), strict=True))


def _product(first: LinearDelta, second: LinearDelta) -> float:
    """Inner product of two changes of one map."""
    total = 0.0
    a, b = first.bias_term(), second.bias_term()
    if a is not None and b is not None:
        total += float(a.detach().double() @ b.detach().double())
    left, right = first.weight(), second.weight()
    if left is not None and right is not None:
        total += float((left.detach().double() * right.detach().double()).sum())
    return total


def _shared(origins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How pairs are put to the model, as far as all of them agree."""
    return {
        key: origins[0][key] for key in ("chat", "system_prompt")
        if key in origins[0] and all(origins[0][key] == other.get(key) for other in origins)
    }  # fmt: skip


def _sum(first: LinearDelta, second: LinearDelta) -> LinearDelta:
    a, b = first.tensors(), second.tensors()
    if first.form == second.form == "lora":
        return from_tensors("lora", _lora_sum(a, b))
    if first.form == second.form:
        return from_tensors(first.form, {name: a[name] + b[name] for name in a})
    return from_tensors("local_weight", _dense_sum(first, second))


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


def _with(artifact: C, delta: LinearDelta, origin: dict[str, Any]) -> C:
    if not all(bool(t.isfinite().all()) for t in delta.tensors().values()):
        raise ConfigError("the result is not finite in float32: use a smaller factor")
    delta.requires_grad_(False)
    return dataclasses.replace(artifact, delta=delta, origin=origin, calibration=None)  # type: ignore[type-var]
