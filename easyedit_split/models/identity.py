"""Which model this is: its name and shape, and fingerprints of its structure and of its weights."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import ArtifactError
from .architectures import ADDS_FEED_FORWARD, STRUCTURE
from .block_output import passes_unchanged
from .guards import eval_mode_frozen
from .parts import decoder_layers, has_norm_after_mlp, hidden_size, unwrap
from .protocols import CausalLM
from .sites import Site, resolve_site
from .weights import Sample, sampled_weights, weights_present

NUMBERS_A_TENSOR = 64
# model -> its numbers and those they were last found to agree with
_accepted: WeakKeyDictionary[Any, tuple[Sample, Any]] = WeakKeyDictionary()
_said: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()  # model -> precisions that were spoken of


def describe_model(model: CausalLM, name: str | None = None) -> dict[str, Any]:
    """What an artifact remembers of its base model: name, architecture, depth, width, fingerprint of its structure."""
    inner = unwrap(model)
    config = inner.config
    structure = {key: _value(config, key) for key in STRUCTURE}
    blocks = decoder_layers(model)
    return {
        "name": name or getattr(config, "_name_or_path", "") or type(inner).__name__,
        "architecture": config.model_type,
        "layers": len(blocks),
        "width": hidden_size(model),
        "norm_after_mlp": has_norm_after_mlp(blocks[0]),
        "fingerprint": hashlib.sha256(json.dumps(structure, sort_keys=True).encode()).hexdigest()[:16],
    }


def identify_model(model: CausalLM, *layers: int) -> dict[str, Any]:
    """`describe_model`, and what is measured of a model whose blocks `layers` (one or more) are steered.

    `weights`: numbers of every tensor up to the highest (`sampled_weights`), by which the model is known again.
    `mlp_adds_to_stream`: whether these blocks' feed-forward output reaches the block's output as it is.
    """
    return {
        **describe_model(model),
        "dtype": str(unwrap(model).dtype).removeprefix("torch."),
        "weights": sampled_weights(model, max(layers)).as_json(),
        "mlp_adds_to_stream": mlp_adds_to_stream(model, *layers),
    }


def check_model(kept: Mapping[str, Any], model: CausalLM, layer: int | None = None, any_model: bool = False) -> None:
    """Check that `model` is the one described by `kept`: architecture, depth, width, and weights up to block `layer`
    (None: as far as they are described).

    The same model in another precision is said, once, as a warning. What `kept` does not say is not checked.

    Args:
        any_model: do not look at the weights.

    Raises:
        ArtifactError: it is another model; or `kept` is broken.
    """
    here = describe_model(model)
    for key in ("architecture", "layers", "width"):
        if key in kept and kept[key] != here[key]:
            raise ArtifactError(
                f"the change was made for {_named(kept)} but the model is {_named(here)}: "
                "use it with the model it was made for"
            )
    if any_model or not kept.get("weights"):
        return
    try:
        layer = int(kept["weights"]["layer"]) if layer is None else layer
        now, inner = sampled_weights(model, layer), unwrap(model)
        if inner in _accepted and _accepted[inner][0] is now and _accepted[inner][1] is kept["weights"]:
            return
        then = Sample.from_json(kept["weights"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"what the artifact keeps of its model is broken ({error!r}): train it again") from None
    wrong, compared = then.differing(now)
    if wrong:
        raise ArtifactError(
            f"the change was made for {_named(kept)}, and this model has its shape but other weights "
            f"({len(wrong)} of {compared} tensors up to layer {layer} differ, {wrong[0]} first): "
            "use the model it was made for, or insist with --any-model (any_model=True)"
        )
    _accepted[inner] = now, kept["weights"]
    _say_precision(inner, then, now)


def same_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two descriptions are of the same weights up to rounding, as far as both say."""
    samples = [Sample.from_json(d["weights"]) for d in (first, second) if d.get("weights")]
    return len(samples) < 2 or not samples[0].differing(samples[1])[0]


def adds_at_block_output(described: Mapping[str, Any]) -> bool:
    """Whether a vector at the feed-forward's output of the model may as well be added to its block's output: as it was
    measured; of a description without that, for families in which it is known."""
    measured = described.get("mlp_adds_to_stream")
    if measured is not None:
        return bool(measured)
    return described.get("norm_after_mlp") is False and described.get("architecture") in ADDS_FEED_FORWARD


def mlp_adds_to_stream(model: CausalLM, *layers: int) -> bool:
    """Whether what is added to the feed-forward's output of each of the blocks `layers` is added to the block's output:
    measured."""
    linears = {layer: resolve_site(model, Site(layer, "residual")).linear for layer in layers}
    with eval_mode_frozen(model):
        return all(linear and passes_unchanged(model, layer, linear) for layer, linear in linears.items())


def _value(config: Any, key: str) -> Any:
    """A key of a config; None where there is none, or one a layer (Gemma-4)."""
    try:
        return getattr(config, key, None)
    except RuntimeError:  # transformers' word for "one a layer"
        return None


def model_fingerprint(model: Any) -> str:
    """Structure and weights of a model in 16 letters: its description, and some numbers of every parameter.

    Cheap on purpose: it tells models apart, it does not prove that two are equal.
    """
    digest = hashlib.sha256(describe_model(model)["fingerprint"].encode())
    for path, module in model.named_modules():
        with weights_present(module):
            for name, parameter in module.named_parameters(path, recurse=False):
                flat = parameter.detach().flatten()
                step = max(1, flat.numel() // NUMBERS_A_TENSOR)
                digest.update(name.encode())
                digest.update(flat[::step][:NUMBERS_A_TENSOR].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _say_precision(model: Any, then: Sample, now: Sample) -> None:
    kinds = then.rounded_otherwise(now)
    if kinds and kinds != _said.get(model):
        _said[model] = kinds
        warnings.warn(
            f"the model is the one the change was made for, in {' and '.join(kinds)} "
            f"(then {' and '.join(now.rounded_otherwise(then))})",
            stacklevel=4,
        )


def _named(model: Mapping[str, Any]) -> str:
    name, kind, depth, width = (model.get(k, "unknown") for k in ("name", "architecture", "layers", "width"))
    return f"{name} ({kind}, {depth} layers of width {width})"
