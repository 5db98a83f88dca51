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

from .fused import (
    Fused,
    codegen_heads,
    equal_parts,
    falcon_heads,
    grouped_heads,
    interleaved_heads,
    one_key_head,
)

GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
SHARED_EXPERT = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj")


@dataclass(frozen=True)
class Architecture:
    """The names of one family.

    `types` are its `config.model_type`s, `blocks` is the path of its decoder blocks in the whole model. `linear` maps a
    component to its module, `fused` a module to the components in it, both relative to a block. `transposed`: its
    linear maps keep their weights as `(d_in, d_out)`. `logits_scale`: what its logits are multiplied by behind the
    vocabulary projection, by its config.
    """

    types: tuple[str, ...]
    blocks: str
    linear: Mapping[str, str]
    fused: Mapping[str, Fused] = field(default_factory=dict)
    transposed: bool = False
    logits_scale: Callable[[Any], float] = lambda config: 1.0


def _feed_forward(up: str, down: str, gate: str | None = None) -> dict[str, str]:
    return {"mlp.down_proj": down, "mlp.up_proj": up, **({} if gate is None else {"mlp.gate_proj": gate})}


def _attention(path: str, output: str = "o_proj") -> dict[str, str]:
    return {"self_attn.o_proj": f"{path}.{output}", **{name: f"{path}.{name.split('.')[1]}" for name in QKV}}


def _shared_expert(path: str) -> dict[str, str]:
    return {name: f"{path}.{name.rsplit('.', 1)[1]}" for name in SHARED_EXPERT}


_GATED = _feed_forward("mlp.up_proj", "mlp.down_proj", "mlp.gate_proj")
_SEPARATE = {**_GATED, **_attention("self_attn")}
_OUTPUTS = {"mlp.down_proj": "mlp.down_proj", "self_attn.o_proj": "self_attn.o_proj"}
_LOW_RANK = {"self_attn.q_proj": "self_attn.q_b_proj", "self_attn.o_proj": "self_attn.o_proj"}
_GATE_UP = {"mlp.gate_up_proj": Fused(GATE_UP, equal_parts(2))}
_NEOX = _feed_forward("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")


def _divided(config: Any) -> float:
    return 1 / config.logits_scaling


def _mup(config: Any) -> float:
    return 1 / config.logits_mup_width_multiplier


def _multiplied(config: Any) -> float:
    return 1.0 if config.logit_scale is None else config.logit_scale


ARCHITECTURES = (
    Architecture(
        ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text", "gemma", "gemma3n_text", "gemma4_text",
         "olmo", "olmo2", "olmo3", "smollm3", "seed_oss", "helium", "ernie4_5", "exaone4", "stablelm", "cwm",
         "ministral", "ministral3", "hunyuan_v1_dense", "vaultgemma", "bitnet", "diffllama"),
        "model.layers", _SEPARATE,
    ),
    Architecture(("arcee", "nemotron", "apertus", "jais2"), "model.layers", _SEPARATE),
    Architecture(
        ("granite", "granitemoe", "granitemoeshared", "granitemoehybrid", "granite_swa", "granitemoe_swa", "minicpm3"),
        "model.layers",
        {**_SEPARATE, "mlp.shared_expert.down_proj": "shared_mlp.output_linear"},
        {"shared_mlp.input_linear": Fused(SHARED_EXPERT[:2], equal_parts(2))},
        logits_scale=_divided,
    ),
    Architecture(
        ("cohere", "cohere2", "cohere2_moe", "cohere_compass_text"), "model.layers", _SEPARATE,
        logits_scale=_multiplied,
    ),
    Architecture(("hyperclovax",), "model.layers", _SEPARATE, logits_scale=lambda config: config.logits_scaling),
    Architecture(
        ("falcon_h1", "bamba", "jamba"), "model.layers",
        {**_feed_forward("feed_forward.up_proj", "feed_forward.down_proj", "feed_forward.gate_proj"),
         **_attention("self_attn")},
        logits_scale=lambda config: getattr(config, "lm_head_multiplier", 1.0),
    ),
    Architecture(
        ("phi3",), "model.layers", _OUTPUTS, {**_GATE_UP, "self_attn.qkv_proj": Fused(QKV, grouped_heads)}
    ),
    Architecture(("glm", "glm4"), "model.layers", {**_OUTPUTS, **_attention("self_attn")}, _GATE_UP),
    Architecture(
        ("gpt2", "openai-gpt"),
        "transformer.h",
        {**_feed_forward("mlp.c_fc", "mlp.c_proj"), "self_attn.o_proj": "attn.c_proj"},
        {"attn.c_attn": Fused(QKV, equal_parts(3))},
        transposed=True,
    ),
    Architecture(
        ("gpt_bigcode",),
        "transformer.h",
        {**_feed_forward("mlp.c_fc", "mlp.c_proj"), "self_attn.o_proj": "attn.c_proj"},
        {"attn.c_attn": Fused(QKV, one_key_head)},
    ),
    Architecture(
        ("gpt_neox", "gpt_neox_japanese"),
        "gpt_neox.layers",
        {**_NEOX, "self_attn.o_proj": "attention.dense"},
        {"attention.query_key_value": Fused(QKV, interleaved_heads)},
    ),
    Architecture(
        ("bloom",), "transformer.h", {**_NEOX, "self_attn.o_proj": "self_attention.dense"},
        {"self_attention.query_key_value": Fused(QKV, interleaved_heads)},
    ),
    Architecture(
        ("falcon",), "transformer.h", {**_NEOX, "self_attn.o_proj": "self_attention.dense"},
        {"self_attention.query_key_value": Fused(QKV, falcon_heads)},
    ),
    Architecture(
        ("persimmon",), "model.layers", {**_NEOX, "self_attn.o_proj": "self_attn.dense"},
        {"self_attn.query_key_value": Fused(QKV, interleaved_heads)},
    ),
    Architecture(
        ("gpt_neo",), "transformer.h",
        {**_feed_forward("mlp.c_fc", "mlp.c_proj"), **_attention("attn.attention", "out_proj")},
    ),
    Architecture(
        ("gptj",), "transformer.h",
        {**_feed_forward("mlp.fc_in", "mlp.fc_out"), **_attention("attn", "out_proj")},
    ),
    Architecture(
        ("codegen",), "transformer.h",
        {**_feed_forward("mlp.fc_in", "mlp.fc_out"), "self_attn.o_proj": "attn.out_proj"},
        {"attn.qkv_proj": Fused(QKV, codegen_heads)},
    ),
    Architecture(
        ("mpt",), "transformer.blocks",
        {**_feed_forward("ffn.up_proj", "ffn.down_proj"), "self_attn.o_proj": "attn.out_proj"},
        {"attn.Wqkv": Fused(QKV, equal_parts(3))},
    ),
    Architecture(
        ("opt",), "model.decoder.layers", {**_feed_forward("fc1", "fc2"), **_attention("self_attn", "out_proj")}
    ),
    Architecture(("xglm",), "model.layers", {**_feed_forward("fc1", "fc2"), **_attention("self_attn", "out_proj")}),
    Architecture(("biogpt",), "biogpt.layers", {**_feed_forward("fc1", "fc2"), **_attention("self_attn", "out_proj")}),
    Architecture(
        ("phi",), "model.layers", {**_feed_forward("mlp.fc1", "mlp.fc2"), **_attention("self_attn", "dense")}
    ),
    Architecture(("nanochat",), "model.layers", {**_feed_forward("mlp.fc1", "mlp.fc2"), **_attention("self_attn")}),
    Architecture(
        ("starcoder2",), "model.layers", {**_feed_forward("mlp.c_fc", "mlp.c_proj"), **_attention("self_attn")}
    ),
    Architecture(
        ("lfm2", "lfm2_moe", "lfm3"), "model.layers",
        {**_feed_forward("feed_forward.w3", "feed_forward.w2", "feed_forward.w1"),
         **_attention("self_attn", "out_proj")},
    ),
    Architecture(
        ("recurrent_gemma",), "model.layers",
        {**_feed_forward("mlp_block.up_proj", "mlp_block.down_proj", "mlp_block.gate_proj"),
         **_attention("temporal_block")},
    ),
    Architecture(
        ("nemotron_h",), "model.layers",
        {**_feed_forward("mixer.up_proj", "mixer.down_proj"), **_attention("mixer"),
         **_shared_expert("mixer.shared_experts")},
    ),
    Architecture(("inkling_text",), "model.layers", _attention("self_attn"), logits_scale=_mup),
    Architecture(
        ("llama4_text",), "model.layers",
        {**_feed_forward("feed_forward.up_proj", "feed_forward.down_proj", "feed_forward.gate_proj"),
         **_attention("self_attn"), **_shared_expert("feed_forward.shared_expert")},
    ),
    Architecture(
        ("qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
        "model.layers", {**_SEPARATE, **_shared_expert("mlp.shared_expert")},
    ),
    Architecture(
        ("mixtral", "gpt_oss", "olmoe", "flex_olmo", "minimax_m2", "phimoe", "mimo_v2_flash"),
        "model.layers", _attention("self_attn"),
    ),
    Architecture(
        ("minimax",), "model.layers", _attention("self_attn"),
        {"self_attn.qkv_proj": Fused(QKV, interleaved_heads)},
    ),
    Architecture(
        ("glm4_moe", "dots1", "ernie4_5_moe", "exaone_moe", "hy_v3", "aria_text", "afmoe", "solar_open", "laguna"),
        "model.layers", {**_SEPARATE, **_shared_expert("mlp.shared_experts")},
    ),
    Architecture(
        ("hunyuan_v1_moe",), "model.layers", {**_SEPARATE, **_shared_expert("mlp.shared_mlp")},
    ),
    Architecture(
        ("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "axk1", "youtu", "kimi_linear"),
        "model.layers", {**_GATED, **_LOW_RANK, **_shared_expert("mlp.shared_experts")},
    ),
)  # fmt: skip

COMPONENTS = ("residual", "mlp.down_proj", "mlp.up_proj", "mlp.gate_proj", *QKV, "self_attn.o_proj")
BLOCK_LISTS = ("layers", "h", "language_model.layers", "blocks")  # relative to the decoder
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "layer_norm")
# norms between a map's output and the residual stream: (behind the feed-forward, behind attention)
SANDWICH_NORMS = (
    ("post_feedforward_layernorm", "post_attention_layernorm"),  # Gemma-2, Gemma-3, OLMo-2
    ("post_mlp_layernorm", "post_self_attn_layernorm"),  # GLM-4
)
# families whose block returns what comes in, plus attention, plus the feed-forward, with nothing in between
ADDS_FEED_FORWARD = ("qwen2", "qwen3", "llama", "mistral", "phi3", "gpt2", "gpt_neox")
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


def fused_modules(component: str, model_type: str) -> dict[str, Fused]:
    """The modules of this family that hold the component among others: only its own, for how rows are shared out
    differs between families that use one name."""
    known = architecture_of(model_type)
    return {} if known is None else {n: f for n, f in known.fused.items() if component in f.components}


def fused_rows(fused: Fused, component: str, d_out: int, config: Any) -> Tensor:
    """The component's rows in the output `(d_out,)` of a fused module."""
    return fused.rows(torch.arange(d_out), config)[fused.components.index(component)]


def logits_scale(config: Any) -> float:
    """What the model multiplies its projected states by to get its logits."""
    known = architecture_of(config.model_type)
    return 1.0 if known is None else float(known.logits_scale(config))


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
