"""EasyEdit's model wrapper: its wrapped blocks, and the plain model inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..errors import HostError
from ..models.protocols import CausalLM

#: EasyEdit's wrappers of a block's parts: class name -> attribute that holds the part itself.
_PARTS = {"MLPWrapper": "mlp", "AttnWrapper": "attn"}
_FREEZER = "Hack_no_grad"


def wrapped_blocks(wrapper: Any) -> nn.ModuleList:
    """The decoder blocks of EasyEdit's `wrapper`, each one a `BlockOutputWrapper`.

    Raises:
        HostError: the model inside has no list of wrapped blocks.
    """
    model = getattr(wrapper, "model", None)
    if isinstance(model, nn.Module):
        for module in model.modules():
            if isinstance(module, nn.ModuleList) and len(module) and _is_wrapped(module[0]):
                return module
    raise HostError(
        f"{type(wrapper).__name__} holds no decoder blocks wrapped by EasyEdit; pass the wrapper that EasyEdit's "
        "get_model returns (models under vLLM are not steered by this package)."
    )


def _is_wrapped(block: Any) -> bool:
    return hasattr(block, "intervention_dict") and hasattr(block, "block")


@contextmanager
def plain_model(wrapper: Any) -> Iterator[CausalLM]:
    """The Hugging Face model inside `wrapper`, with EasyEdit's wrapper modules taken out for a while.

    Hooks set inside stay on their modules. Nothing that EasyEdit itself has attached acts inside; what this package
    has attached does (see `take_away_tokens`). The wrapper modules are back in place afterwards, whatever happens.
    """
    blocks = wrapped_blocks(wrapper)
    wrapped = list(blocks)
    undo: list[tuple[nn.Module, str, nn.Module]] = []
    for owner, name in _freezers(wrapper.model):
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, getattr(owner, name).module)
    for index, outer in enumerate(wrapped):
        inner: Any = outer.block
        for name, part in list(inner.named_children()):
            if type(part).__name__ in _PARTS:
                undo.append((inner, name, part))
                setattr(inner, name, getattr(part, _PARTS[type(part).__name__]))
        blocks[index] = inner
    try:
        yield wrapper.model
    finally:
        for index, outer in enumerate(wrapped):
            blocks[index] = outer
        for owner, name, part in reversed(undo):
            setattr(owner, name, part)


def _freezers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where `lm_steer` has put a module that runs the decoder without gradients."""
    return [(model, name) for name, child in model.named_children() if type(child).__name__ == _FREEZER]


def load_wrapper(hparams: Any) -> Any:
    """Load the model that `hparams.model_name_or_path` names, through EasyEdit."""
    from steer.models.get_model import get_model  # type: ignore[import-not-found]

    wrapper, _ = get_model(hparams)
    return wrapper
