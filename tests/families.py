"""A tiny random model of every decoder-only language model that transformers has.

A family's shape is its own default configuration with each size that `SMALL` knows made small; `SPECIAL` holds what
a family needs besides. `LEFT_OUT` says of the others what they are.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

LAYERS = 4
SMALL: dict[str, Any] = {
    "vocab_size": 260, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "word_embed_proj_dim", "lru_width", "dim_model"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "dff", "dim_ff"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads"), 4),
    "num_key_value_heads": 2, **dict.fromkeys(("head_dim", "dim_head"), 8), "rotary_dim": 4,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 256),
    # windows: longer than the probe's three answers, shorter than the pairs of the tests
    **dict.fromkeys(("sliding_window", "attention_window_size", "attention_chunk_size", "window_size"), 16),
    "query_pre_attn_scalar": 8,
    # experts
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k"), 2), "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24), "first_k_dense_replace": 1,
    # low-rank attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    # recurrences
    **dict.fromkeys(("linear_num_key_heads", "n_groups", "mamba_n_groups"), 2),
    **dict.fromkeys(("linear_num_value_heads", "mamba_n_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "state_size", "ssm_state_size"), 8),
    "mamba_d_state": 8, "mamba_d_head": 16, "mamba_head_dim": 16, "chunk_size": 16,
    # embeddings by layer
    **dict.fromkeys(("linear_head_dim",), 8), "linear_num_heads": 4, "shared_intermediate_size": 24,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 260, "laurel_rank": 4,
}  # fmt: skip

_LOW_RANK = {"num_key_value_heads": 4}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("axk1", "axk2", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite",
         "glm_moe_dsa", "kimi_linear", "longcat_flash", "minicpm3", "youtu"), _LOW_RANK,
    ),
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere": {"logit_scale": 0.25},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "falcon_h1": {"mamba_d_ssm": 64, "lm_head_multiplier": 0.5},
    "gemma3n_text": {"num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * LAYERS},
    "gemma4_text": {"num_kv_shared_layers": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granite": {
        "logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0, "attention_multiplier": 0.3,
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "hyperclovax": {"logits_scaling": 0.5, "residual_multiplier": 0.5},
    "inkling_text": {"logits_mup_width_multiplier": 2.0},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"]},
    "zamba2": {"layers_block_type": ["linear_attention", "linear_attention", "hybrid", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip

_ENCODER = "an encoder, or made of an encoder and a decoder"
_SEVERAL = "reads images or sound; its language model is listed under a name of its own"
_UNTRIED = "its default configuration cannot be made small enough to be tried"
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(
        ("bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small",
         "camembert", "data2vec-text", "electra", "ernie", "git", "marian", "mbart", "megatron-bert", "musicgen",
         "musicgen_melody", "mvp", "pegasus", "plbart", "prophetnet", "reformer", "rembert", "roberta",
         "roberta-prelayernorm", "roc_bert", "roformer", "trocr", "whisper", "xlm", "xlm-roberta",
         "xlm-roberta-xl", "xlnet", "xmod"), _ENCODER,
    ),
    **dict.fromkeys(
        ("dots3_note", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "got_ocr2", "llama4",
         "mllama", "moshi", "moss_transcribe_diarize", "phi4_multimodal", "qwen3_5", "qwen3_5_moe", "qwen4_exp"),
        _SEVERAL,
    ),
    "cpmant": "reads prompts of its own, in both directions",
    "zamba": "transformers 5.23 cannot build it with fewer blocks",
    **dict.fromkeys(
        ("blt", "dots3_note_text", "gemma4_assistant", "gemma4_unified_assistant", "qwen4_exp_text"), _UNTRIED
    ),
}  # fmt: skip


def family_model(kind: str, **more: Any) -> Any:
    """A random model of `kind`, weights large enough that every part of it matters; `more` overrides its shape."""
    default = CONFIG_MAPPING[kind]()
    known = {*default.to_dict(), *default.attribute_map}
    shape = {name: value for name, value in SMALL.items() if name in known}
    layer_types = default.to_dict().get("layer_types")
    if layer_types:
        kinds = list(dict.fromkeys(layer_types))
        shape["layer_types"] = [kinds[i % len(kinds)] for i in range(LAYERS)]
    config = AutoConfig.for_model(kind, **{**shape, **SPECIAL.get(kind, {}), **more})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name and "wte" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    return model.float().eval().requires_grad_(False)
