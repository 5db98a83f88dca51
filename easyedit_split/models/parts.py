"""The parts of a loaded model: its decoder, blocks, last norm and vocabulary projection, and where they compute."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn

from ..errors import SiteError
from .architectures import BLOCK_LISTS, FINAL_NORMS, architecture_of, norm_behind


def unwrap(model: Any) -> Any:
    """The Hugging Face model inside a PEFT wrapper; a compiled model is refused, because it ignores new hooks."""
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        raise SiteError(
            "the model was compiled with torch.compile, which ignores hooks added later: "
            "attach to the model as it was before torch.compile, and compile afterwards"
        )
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: Any) -> nn.Module:
    """The model without its vocabulary projection: what maps token ids to last hidden states."""
    model = unwrap(model)
    known = architecture_of(getattr(getattr(model, "config", None), "model_type", ""))
    named = submodule(model, known.blocks.rpartition(".")[0]) if known else None
    return unwrap(getattr(model, "base_model", model) if named is None else named)


def decoder_layers(model: Any) -> nn.ModuleList:
    """The list of decoder blocks.

    Raises:
        SiteError: none of the known paths exists; the message lists them.
    """
    inner = decoder(model)
    for path in BLOCK_LISTS:
        layers = submodule(inner, path)
        if isinstance(layers, nn.ModuleList):
            return layers
    raise SiteError(
        f"{type(model).__name__} has no list of decoder blocks at {', '.join(BLOCK_LISTS)}: "
        "this architecture is not supported"
    )


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: where its parameters are or, if they are offloaded, where accelerate brings them.

    Raises:
        SiteError: they are nowhere.
    """
    device = next(chain(module.parameters(), module.buffers())).device  # some quantised layers have buffers only
    if device.type != "meta":
        return device
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for single in getattr(hook, "hooks", (hook,)):  # accelerate may chain several in one
            place = getattr(single, "execution_device", None)
            if place is not None:
                return torch.device(place)
    raise SiteError("the model has no weights (they are on 'meta'): load it with from_pretrained")


def embedding_device(model: Any) -> torch.device:
    """Where input tokens go."""
    return device_of(unwrap(model).get_input_embeddings())


def hidden_size(model: Any) -> int:
    """Width of the residual stream."""
    return text_config(model).hidden_size


def text_config(model: Any) -> Any:
    """The config of the language model, which in a multimodal one is a part."""
    return unwrap(model).config.get_text_config()


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """`(d_in, d_out)` of an `nn.Linear`, a quantised or PEFT-wrapped one, or GPT-2's transposed `Conv1D`."""
    if hasattr(module, "nx") and hasattr(module, "nf"):
        return int(module.nx), int(module.nf)  # type: ignore[arg-type]
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def has_norm_after_mlp(block: nn.Module) -> bool:
    """Whether a norm stands between the feed-forward's output and the residual stream (Gemma-2, Gemma-3)."""
    return norm_behind(block, "mlp.down_proj") is not None


def submodule(module: Any, path: str) -> Any:
    """What lies at a dotted path below a module; None where there is nothing."""
    for name in path.split("."):
        module = getattr(module, name, None)
        if module is None:
            return None
    return module


def is_linear(module: Any) -> bool:
    """Whether a module is an affine map: an `nn.Linear`, a quantised or wrapped one, or GPT-2's `Conv1D`."""
    if not isinstance(module, nn.Module):
        return False
    return hasattr(module, "in_features") or (hasattr(module, "nx") and hasattr(module, "nf"))


def context_length(model: Any) -> int | None:
    """Longest sequence in tokens that the model's position embeddings are made for; None if it does not say."""
    config = text_config(model)
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def final_norm(model: Any) -> Any:
    """The norm behind the last block.

    Raises:
        SiteError: none of the known names exists; the message lists them.
    """
    inner = decoder(model)
    for name in FINAL_NORMS:
        if (norm := submodule(inner, name)) is not None:
            return norm
    raise SiteError(f"{type(inner).__name__} has no last norm named {', '.join(FINAL_NORMS)}: it is not supported")
