"""Where a change is added: one affine map of one decoder block, or the block's output (paper, section 2.1).

A `Site` is a name. `resolve_site` finds the module behind it in a model, for Qwen2, Qwen3, Llama, Mistral,
Gemma-2, Gemma-3 (text), Phi-3, GPT-2 and GPT-NeoX, and for any model whose module path is given by hand.
Where an architecture fuses several projections into one module, the site is a set of that module's output rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .errors import SiteError

# component -> names of the module, relative to the decoder block, in the supported architectures
_PLAIN: dict[str, tuple[str, ...]] = {
    "mlp.down_proj": ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h"),
    "mlp.up_proj": ("mlp.up_proj", "mlp.c_fc", "mlp.dense_h_to_4h"),
    "mlp.gate_proj": ("mlp.gate_proj",),
    "self_attn.q_proj": ("self_attn.q_proj",),
    "self_attn.k_proj": ("self_attn.k_proj",),
    "self_attn.v_proj": ("self_attn.v_proj",),
    "self_attn.o_proj": ("self_attn.o_proj", "attn.c_proj", "attention.dense"),
}
# component -> (fused module, index of the part); how the parts lie in it is in `_fused_rows`
_FUSED: dict[str, tuple[tuple[str, int], ...]] = {
    "mlp.gate_proj": (("mlp.gate_up_proj", 0),),
    "mlp.up_proj": (("mlp.gate_up_proj", 1),),
    "self_attn.q_proj": (("self_attn.qkv_proj", 0), ("attn.c_attn", 0), ("attention.query_key_value", 0)),
    "self_attn.k_proj": (("self_attn.qkv_proj", 1), ("attn.c_attn", 1), ("attention.query_key_value", 1)),
    "self_attn.v_proj": (("self_attn.qkv_proj", 2), ("attn.c_attn", 2), ("attention.query_key_value", 2)),
}
COMPONENTS = ("residual", *_PLAIN)
_LAYER_LISTS = ("layers", "h", "language_model.layers", "decoder.layers")


@dataclass(frozen=True)
class Site:
    """A place in the model: decoder block `layer` (from 0) and the `component` in it.

    `component` is one of `COMPONENTS`, or the path of any linear module relative to the block
    (`"feed_forward.w2"`). `"residual"` is the block's output: only a vector fits there.
    """

    layer: int
    component: str = "mlp.down_proj"

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.component}"


@dataclass(frozen=True)
class ResolvedSite:
    """A site found in a model.

    `module` is hooked. `rows` are the output features of `module` that belong to the site (None: all of them).
    `linear` is the module whose weights a merge edits: `module` itself, or, for `"residual"`, the last linear map
    whose output reaches the residual stream unchanged (None where a norm stands between, as in Gemma-2).
    """

    site: Site
    module: nn.Module
    linear: nn.Module | None
    rows: Tensor | None
    d_in: int
    d_out: int

    @property
    def is_residual(self) -> bool:
        return self.site.component == "residual"


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
    return unwrap(getattr(model, "base_model", model))


def decoder_layers(model: Any) -> nn.ModuleList:
    """The list of decoder blocks.

    Raises:
        SiteError: none of the known paths exists; the message lists them.
    """
    inner = decoder(model)
    for path in _LAYER_LISTS:
        layers = _get(inner, path)
        if isinstance(layers, nn.ModuleList):
            return layers
    raise SiteError(
        f"{type(model).__name__} has no list of decoder blocks at {', '.join(_LAYER_LISTS)}: "
        "this architecture is not supported"
    )


def resolve_site(model: Any, site: Site) -> ResolvedSite:
    """Find `site` in `model`.

    Raises:
        SiteError: the layer is out of range, or the block has no such module; the message says what was looked for.
    """
    layers = decoder_layers(model)
    if not 0 <= site.layer < len(layers):
        raise SiteError(
            f"layer {site.layer} is out of range: {type(unwrap(model)).__name__} has layers 0 to {len(layers) - 1}"
        )
    block = layers[site.layer]
    if site.component == "residual":
        width = hidden_size(model)
        return ResolvedSite(site, block, _residual_linear(block), None, width, width)
    found = _find_linear(block, site.component, model)
    if found is None:
        raise SiteError(_not_found(block, site))
    module, rows = found
    d_in, d_out = linear_shape(module)
    return ResolvedSite(site, module, module, rows, d_in, d_out if rows is None else len(rows))


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
    config = unwrap(model).config
    return getattr(config, "hidden_size", None) or config.get_text_config().hidden_size


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """`(d_in, d_out)` of an `nn.Linear`, a quantised or PEFT-wrapped one, or GPT-2's transposed `Conv1D`."""
    if hasattr(module, "nx") and hasattr(module, "nf"):
        return int(module.nx), int(module.nf)  # type: ignore[arg-type]
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def has_norm_after_mlp(block: nn.Module) -> bool:
    """Whether a norm stands between the feed-forward's output and the residual stream (Gemma-2, Gemma-3)."""
    return hasattr(block, "post_feedforward_layernorm")


def _get(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
        if module is None:
            return None
    return module


def _is_linear(module: Any) -> bool:
    if not isinstance(module, nn.Module):
        return False
    return hasattr(module, "in_features") or (hasattr(module, "nx") and hasattr(module, "nf"))


def _find_linear(block: nn.Module, component: str, model: Any) -> tuple[nn.Module, Tensor | None] | None:
    for path in _PLAIN.get(component, (component,)):
        module = _get(block, path)
        if _is_linear(module):
            return module, None
    for path, part in _FUSED.get(component, ()):
        module = _get(block, path)
        if _is_linear(module):
            return module, _fused_rows(path, part, linear_shape(module)[1], unwrap(model).config)
    return None


def _fused_rows(path: str, part: int, d_out: int, config: Any) -> Tensor:
    """Rows of part `part` in a fused projection's output."""
    everything = torch.arange(d_out)
    if path == "mlp.gate_up_proj":
        return everything.chunk(2)[part]
    if path == "attn.c_attn":
        return everything.chunk(3)[part]
    heads = config.num_attention_heads
    if path == "attention.query_key_value":  # GPT-NeoX: (heads, [q, k, v], head width)
        return everything.view(heads, 3, -1)[:, part].flatten()
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return everything.split([heads * width, config.num_key_value_heads * width, config.num_key_value_heads * width])[
        part
    ]


def _residual_linear(block: nn.Module) -> nn.Module | None:
    if has_norm_after_mlp(block):
        return None
    return next((m for p in _PLAIN["mlp.down_proj"] if _is_linear(m := _get(block, p))), None)


def _not_found(block: nn.Module, site: Site) -> str:
    looked = [*_PLAIN.get(site.component, (site.component,)), *(p for p, _ in _FUSED.get(site.component, ()))]
    linears = [name for name, module in block.named_modules() if _is_linear(module)]
    return (
        f"no linear module for {site.component!r} in block {site.layer} ({type(block).__name__}): "
        f"looked for {', '.join(looked)}; name one of its linear modules by hand, for example "
        f"Site({site.layer}, {(linears or ['mlp.w2'])[0]!r}); it has {', '.join(linears) or 'none'}"
    )
