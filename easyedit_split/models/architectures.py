"""Everything that differs between architectures: adding one is one entry in `ARCHITECTURES`.

An entry says how a family names the linear maps of a decoder block and where its blocks are. A model of another family
that uses the same names works, too: what is looked up in a model is looked up under every known name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class Fused:
    """Several maps in one module: which components, and how their rows `(d_out,)` are shared out."""

    components: tuple[str, ...]
    rows: Callable[[Tensor, Any], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Architecture:
    """The names of one family.

    `types` are its `config.model_type`s, `blocks` is the path of its decoder blocks in the whole model. `linear` maps a
    component to its module, `fused` a module to the components in it, both relative to a block. `transposed`: its
    linear maps keep their weights as `(d_in, d_out)`.
    """

    types: tuple[str, ...]
    blocks: str
    linear: Mapping[str, str]
    fused: Mapping[str, Fused] = field(default_factory=dict)
    transposed: bool = False


def _equal_parts(count: int) -> Callable[[Tensor, Any], tuple[Tensor, ...]]:
    return lambda rows, config: rows.chunk(count)


def _grouped_heads(rows: Tensor, config: Any) -> tuple[Tensor, ...]:
    """Query heads first, then the fewer heads of keys and of values."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys = config.num_key_value_heads * width
    return rows.split([config.num_attention_heads * width, keys, keys])


def _interleaved_heads(rows: Tensor, config: Any) -> tuple[Tensor, ...]:
    """`(heads, [q, k, v], head width)`."""
    return tuple(rows.view(config.num_attention_heads, 3, -1)[:, part].flatten() for part in range(3))


_OUTPUTS = {"mlp.down_proj": "mlp.down_proj", "self_attn.o_proj": "self_attn.o_proj"}
_SEPARATE = {**_OUTPUTS, **{name: name for name in (*GATE_UP, *QKV)}}

ARCHITECTURES = (
    Architecture(("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text"), "model.layers", _SEPARATE),
    Architecture(
        ("phi3",),
        "model.layers",
        _OUTPUTS,
        {"mlp.gate_up_proj": Fused(GATE_UP, _equal_parts(2)), "self_attn.qkv_proj": Fused(QKV, _grouped_heads)},
    ),
    Architecture(
        ("gpt2",),
        "transformer.h",
        {"mlp.down_proj": "mlp.c_proj", "mlp.up_proj": "mlp.c_fc", "self_attn.o_proj": "attn.c_proj"},
        {"attn.c_attn": Fused(QKV, _equal_parts(3))},
        transposed=True,
    ),
    Architecture(
        ("gpt_neox",),
        "gpt_neox.layers",
        {
            "mlp.down_proj": "mlp.dense_4h_to_h",
            "mlp.up_proj": "mlp.dense_h_to_4h",
            "self_attn.o_proj": "attention.dense",
        },
        {"attention.query_key_value": Fused(QKV, _interleaved_heads)},
    ),
)

COMPONENTS = ("residual", "mlp.down_proj", "mlp.up_proj", "mlp.gate_proj", *QKV, "self_attn.o_proj")
BLOCK_LISTS = ("layers", "h", "language_model.layers", "decoder.layers")  # relative to the decoder
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")
# norms between a map's output and the residual stream: (behind the feed-forward, behind attention)
SANDWICH_NORMS = (
    ("post_feedforward_layernorm", "post_attention_layernorm"),  # Gemma-2, Gemma-3, OLMo-2
    ("post_mlp_layernorm", "post_self_attn_layernorm"),  # GLM-4
)
# keys of a config that say what weights it asks for
STRUCTURE = (
    "model_type", "hidden_size", "n_embd", "intermediate_size", "num_hidden_layers", "n_layer",
    "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
BIAS_SWITCHES = ("mlp_bias", "attention_bias")  # keys of a config that give its linear maps a bias


def module_names(component: str) -> tuple[str, ...]:
    """Every name under which a component is a module of its own; an unknown component is its own name."""
    known = dict.fromkeys(a.linear[component] for a in ARCHITECTURES if component in a.linear)
    return tuple(known) or (component,)


def fused_names(component: str) -> tuple[str, ...]:
    """Every fused module that holds the component."""
    return tuple(dict.fromkeys(n for a in ARCHITECTURES for n, f in a.fused.items() if component in f.components))


def fused_rows(module: str, component: str, d_out: int, config: Any) -> Tensor:
    """The component's rows in the output `(d_out,)` of a fused module."""
    fused = next(a.fused[module] for a in ARCHITECTURES if module in a.fused)
    return fused.rows(torch.arange(d_out), config)[fused.components.index(component)]


def architecture_of(model_type: str) -> Architecture | None:
    """The entry of a `config.model_type`; None where there is none."""
    return next((a for a in ARCHITECTURES if model_type in a.types), None)


def component_of(module: str) -> str:
    """The component that a module name, relative to a block, means; an unknown one is its own name."""
    return next((c for a in ARCHITECTURES for c, name in a.linear.items() if name == module), module)


def norm_behind(block: Any, component: str) -> str | None:
    """Name of the norm between a map's output and the residual stream; None where there is none."""
    for feed_forward, attention in SANDWICH_NORMS:
        if hasattr(block, feed_forward):
            return {"mlp.down_proj": feed_forward, "self_attn.o_proj": attention}.get(component)
    return None
