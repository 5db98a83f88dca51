"""Tiny random models of every supported architecture, and a byte-level tokenizer, without any hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

ARCHITECTURES = ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox")
MAIN = ("qwen2", "llama", "gemma2", "gpt2")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> Any:
    """Byte-level, 256 bytes and four special tokens, no merges; ChatML template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )


def tiny_model(kind: str, layers: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random model with weights large enough that every part of it matters."""
    tokens = {"vocab_size": 260, "pad_token_id": 259, "eos_token_id": 258, "bos_token_id": 256}
    common: dict[str, Any] = {
        **tokens, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }  # fmt: skip
    if kind == "gpt2":
        common = {**tokens, "n_embd": 32, "n_inner": 48, "n_layer": layers, "n_head": 4, "n_positions": 256}
    elif kind != "gpt_neox":
        common.update(num_key_value_heads=2, head_dim=8)
    if kind.startswith("gemma"):
        common.update(sliding_window=16, query_pre_attn_scalar=8)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **common)).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    return model.eval().requires_grad_(False)


def saved_model(folder: Path, kind: str = "qwen2", **options: Any) -> Path:
    """`folder`, with a tiny model and its tokenizer in it, as `from_pretrained` wants them."""
    tiny_model(kind, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def random_delta(delta: Any, scale: float = 0.1, seed: int = 1) -> Any:
    """Fill a delta with noise, so that it does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return delta.requires_grad_(False)


def token_batch(rows: int = 3, length: int = 12, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(seed))
