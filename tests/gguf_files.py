"""GGUF files of models, written for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tiny import TEMPLATE, tiny_model, tiny_tokenizer

# names of a block's tensors in GGUF
_BLOCK = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
_OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
          "lm_head.weight": "output.weight"}  # fmt: skip


def gguf_name(name: str) -> str:
    """The name in GGUF of a parameter of Qwen2, Qwen3, Llama or Mistral."""
    if name in _OUTER:
        return _OUTER[name]
    _, _, layer, rest = name.split(".", 3)
    path, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_BLOCK[path]}.{kind}"


def write_gguf(
    path: Path, *, architecture: str = "qwen2", tokens: bool = True, chat: bool = True, parts: int = 1,
    quantised: bool = False,
) -> Any:  # fmt: skip
    """Write the tiny Qwen2 model as GGUF; returns the model. `quantised`: square matrices in Q8_0, the rest in F32."""
    model = tiny_model("qwen2")
    writer = GGUFWriter(path, architecture)
    _add_shape(writer, model.config, head=8)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    if tokens:
        vocabulary = tiny_tokenizer().get_vocab()
        writer.add_tokenizer_model("gpt2")
        listed = [t for t, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
        listed[256] = "ab"  # one merge: transformers reads no tokenizer without any
        writer.add_token_list(listed)
        writer.add_token_types([3 if i > 256 else 1 for i in range(len(listed))])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(257)
        writer.add_eos_token_id(258)
        if chat:
            writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy().astype(np.float32)
        if quantised and values.shape == (32, 32):
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), values)
    _finish(writer)
    return model


def save_gguf(path: Path, model: Any, tokenizer: Any = None) -> Path:
    """Write a Qwen2, Qwen3, Llama or Mistral model in F32, as llama.cpp reads it.

    Of the tokenizer's vocabulary, byte-level; without one, a token's text is its number: llama.cpp gives no
    log-probability of tokens that are parts of a character. llama.cpp keeps Llama's (and Mistral's) query and key rows
    in another order, head by head: the two halves of a head are interleaved.
    """
    config = model.config
    is_llama = config.model_type in ("llama", "mistral")
    writer = GGUFWriter(path, "llama" if is_llama else config.model_type)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    _add_shape(writer, config, head)
    writer.add_rope_dimension_count(head)
    if tokenizer is None:
        _add_vocabulary(writer, [f"t{i}." for i in range(config.vocab_size)], set(), ["a b"])  # none is refused
    else:
        known = json.loads(tokenizer.backend_tokenizer.to_str())
        special = {token["id"] for token in known["added_tokens"] if token["special"]}
        listed = [t for t, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
        _add_vocabulary(writer, listed, special, [" ".join(pair) for pair in known["model"]["merges"]])
        writer.add_chat_template(tokenizer.chat_template)
    writer.add_eos_token_id(config.eos_token_id)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float()
        if is_llama and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            halves = values.unflatten(0, (heads, 2, head // 2))
            values = halves.transpose(1, 2).flatten(0, 2)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(values.numpy()))
    _finish(writer)
    return path


def _add_shape(writer: GGUFWriter, config: Any, head: int) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_vocab_size(config.vocab_size)


def _add_vocabulary(writer: GGUFWriter, tokens: list[str], special: set[int], merges: list[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
