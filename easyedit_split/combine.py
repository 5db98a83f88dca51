"""Changes as vectors in the space of `(dW, db)`: scaled, added, compared, and read through the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .deltas import LinearDelta, from_tensors
from .errors import ConfigError, SiteError
from .sites import decoder, decoder_layers, device_of, unwrap

if TYPE_CHECKING:
    from .artifact import SteeringArtifact

_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")
_NORM_BEHIND = {"mlp.down_proj": "post_feedforward_layernorm", "self_attn.o_proj": "post_attention_layernorm"}


def scaled(artifact: SteeringArtifact, factor: float) -> SteeringArtifact:
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


def add(first: SteeringArtifact, second: SteeringArtifact) -> SteeringArtifact:
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


def cosine(first: SteeringArtifact, second: SteeringArtifact) -> float:
    """Cosine of the angle between two changes at one site, -1 to 1 (`dW` and `db` together as one long vector).

    Raises:
        ConfigError: another site or other shapes, or a change that is zero.
    """
    length = math.sqrt(_inner(first, first) * _inner(second, second))
    if length == 0:
        raise ConfigError("one of the two changes is zero, so it has no direction: train it first")
    return max(-1.0, min(1.0, _inner(first, second) / length))


def projection(artifact: SteeringArtifact, onto: SteeringArtifact) -> float:
    """The `c` for which `artifact` is `c` times `onto`, plus a rest at a right angle to `onto`.

    Raises:
        ConfigError: another site or other shapes, or `onto` is zero.
    """
    square = _inner(onto, onto)
    if square == 0:
        raise ConfigError("the change to project onto is zero, so it has no direction: train it first")
    return _inner(artifact, onto) / square


@dataclass(frozen=True)
class PromotedToken:
    """A token and its score: the logit it gets where the vector's direction is all there is in the last state."""

    token_id: int
    text: str
    score: float


def promoted_tokens(
    model: Any, tokenizer: Any, artifact: SteeringArtifact, count: int = 10, sign: float = 1.0
) -> list[PromotedToken]:
    """The tokens a change's `db` promotes most through the unembedding ("logit lens"), best first.

    The vector passes the norm behind its site, where there is one, then the model's last norm and its vocabulary
    projection; the scores of a zero state are subtracted. `sign=-1` gives those that a negative m promotes.

    Raises:
        ConfigError: the change has no `db`.
        SiteError: its site does not write into the residual stream.
    """
    db = artifact.delta.bias_term()
    if db is None:
        raise ConfigError(f"form {artifact.form!r} has no db, so it promotes no token by itself")
    site = artifact.resolve(model)
    norms = [_final_norm(model)]
    if not site.is_residual:
        if site.site.component not in _NORM_BEHIND:
            raise SiteError(f"{site.site} does not write into the residual stream: its tokens are not defined")
        block = decoder_layers(model)[site.site.layer]
        if hasattr(block, "post_feedforward_layernorm"):
            norms.insert(0, getattr(block, _NORM_BEHIND[site.site.component]))
    scores = _lens(model, norms, sign * db.detach())
    best = scores.topk(min(count, len(scores)))
    return [
        PromotedToken(i, tokenizer.decode([i]), s)
        for i, s in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _lens(model: Any, norms: Sequence[Any], vector: Tensor) -> Tensor:
    head = unwrap(model).get_output_embeddings()
    vector = vector.cpu()
    if bool(vector.any()):
        vector = vector * (1e3 / vector.square().mean().sqrt())  # so long that the norm's epsilon is nothing
    states = torch.stack([vector, torch.zeros_like(vector)]).to(head.weight.dtype)
    with torch.no_grad():
        for module in (*norms, head):  # each may be on a device of its own
            states = module(states.to(device_of(module)))
    logits = states.float().cpu()
    return logits[0] - logits[1]


def _final_norm(model: Any) -> Any:
    inner = decoder(model)
    for name in _FINAL_NORMS:
        if hasattr(inner, name):
            return getattr(inner, name)
    raise SiteError(f"{type(inner).__name__} has no last norm named {', '.join(_FINAL_NORMS)}: it is not supported")


def _check_same_place(first: SteeringArtifact, second: SteeringArtifact) -> None:
    for what, a, b in (
        ("site", first.site, second.site),
        ("positions", first.positions, second.positions),
        ("model", _structure(first, second), _structure(second, first)),
        ("output width", first.delta.d_out, second.delta.d_out),
    ):
        if a != b:
            raise ConfigError(f"the two changes have not the same {what} ({a} and {b}): attach both instead")
    if "vector" not in (first.form, second.form) and first.delta.d_in != second.delta.d_in:
        raise ConfigError(f"the two changes have input widths {first.delta.d_in} and {second.delta.d_in}")


def _structure(artifact: SteeringArtifact, other: SteeringArtifact) -> dict[str, Any]:
    keys = ("architecture", "layers", "width", "fingerprint")
    return {k: artifact.model[k] for k in keys if k in artifact.model and k in other.model}


def _inner(first: SteeringArtifact, second: SteeringArtifact) -> float:
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
        from .lowrank import factorised

        product = factorised(tensors["B"].double() @ tensors["A"].double(), rank=most)
        tensors = {"A": product.A, "B": product.B}
    return tensors


def _dense_sum(first: LinearDelta, second: LinearDelta) -> dict[str, Tensor]:
    weights = [w.detach() for w in (first.weight(), second.weight()) if w is not None]
    biases = [b.detach() for b in (first.bias_term(), second.bias_term()) if b is not None]
    d_weight = torch.stack(weights).sum(0)
    d_bias = torch.stack(biases).sum(0) if biases else d_weight.new_zeros(len(d_weight))
    return {"dW": d_weight, "db": d_bias}


def _with(
    artifact: SteeringArtifact, form: str, tensors: dict[str, Tensor], origin: dict[str, Any]
) -> SteeringArtifact:
    from .artifact import SteeringArtifact

    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise ConfigError("the result is not finite in float32: use a smaller factor")
    delta = from_tensors(form, tensors).requires_grad_(False)
    return SteeringArtifact(delta, artifact.site, artifact.positions, artifact.model, origin)
