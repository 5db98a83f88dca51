"""Loading a Hugging Face model and its tokenizer, and holding a model still while it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from .errors import ConfigError

DTYPES = ("float32", "float16", "bfloat16", "auto")


def load_model(
    name: str | Path, *, dtype: str = "float32", device: str | None = None, device_map: Any = None
) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, through `from_pretrained`.

    Args:
        name: a folder, a hub id, or `"demo"` for the shipped model.
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
    if str(name) == "demo":
        from .demo import model_path

        name = model_path()
    if str(name).startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ConfigError(f"model folder {str(name)!r} does not exist: check the path")
    _check_device(device)
    kind: Any = "auto" if dtype == "auto" else getattr(torch, dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
        model = AutoModelForCausalLM.from_pretrained(str(name), dtype=kind, device_map=device_map)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"model {str(name)!r} cannot be loaded ({reason}): give a model folder or a hub id"
        ) from error
    if device_map is None and device is not None:
        model = model.to(device)  # type: ignore[arg-type]
    return model.eval(), tokenizer


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


@contextmanager
def memory_errors_named() -> Iterator[None]:
    """Inside, torch's "out of memory" becomes an error of this package.

    Raises:
        ConfigError: it does not fit.
    """
    try:
        yield
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        raise ConfigError(
            "it does not fit in the device's memory: free some, choose a smaller dtype or model, or shorter texts"
        ) from error


def context_length(model: Any) -> int | None:
    """Longest sequence in tokens that the model's position embeddings are made for; None if it does not say."""
    from .sites import unwrap

    config = unwrap(model).config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def random_state_kept() -> AbstractContextManager[None]:
    """Inside, torch's generators may be seeded and used; afterwards they are as they were, on every device."""
    import torch

    return torch.random.fork_rng(range(torch.cuda.device_count()))


@contextmanager
def held_still(model: Any) -> Iterator[None]:
    """Inside, the model is in eval mode and its parameters need no gradient; afterwards all is as it was found."""
    modules = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval()
        for parameter, _ in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modules:
            module.training = training
        for parameter, needed in parameters:
            parameter.requires_grad_(needed)


def check_trainable(model: Any, layer: int) -> None:
    """Raise `ConfigError` where no gradient can pass the model's blocks from `layer` up.

    bitsandbytes repacks 4-bit weights in place for processors that multiply bfloat16, and what it computes with them
    from then on has no gradient.
    """
    from .sites import decoder_layers

    blocks = decoder_layers(model)[layer:]
    for module in (m for block in blocks for m in block.modules()):
        if getattr(module, "support_avx512bf16_for_cpu", False) and module.weight.device.type == "cpu":
            raise ConfigError(
                f"blocks from layer {layer} up hold 4-bit weights on the processor, where bitsandbytes gives no "
                "gradient: train on a GPU, or load the model in 8 bits"
            )
        if type(module).__name__ == "Linear8bitLt" and module.weight.is_meta:
            raise ConfigError(
                f"blocks from layer {layer} up hold 8-bit weights that are offloaded, through which bitsandbytes gives "
                "no gradient: keep them on a device, or load the model unquantised"
            )
