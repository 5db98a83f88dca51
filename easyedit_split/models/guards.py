"""Leaving a model as it was found, and saying early what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from ..errors import ConfigError
from .protocols import CausalLM


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


def random_state_kept() -> AbstractContextManager[None]:
    """Inside, torch's generators may be seeded and used; afterwards they are as they were, on every device."""
    import torch

    return torch.random.fork_rng(range(torch.cuda.device_count()))


@contextmanager
def eval_mode_frozen(model: CausalLM) -> Iterator[None]:
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


def check_trainable(model: CausalLM, layer: int) -> None:
    """Raise `ConfigError` where no gradient can pass the model's blocks from `layer` up.

    bitsandbytes repacks 4-bit weights in place for processors that multiply bfloat16, and what it computes with them
    from then on has no gradient.
    """
    from .parts import decoder_layers

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
