"""Running a model's decoder: on tokens, on the rows of a batch, with a block's outputs kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from ..changes.attach import handles_on
from ..models.parts import decoder, decoder_layers, text_config, unwrap
from ..models.protocols import CausalLM
from .rotation import rows_rotated_alone
from .rows import Batch


def run_decoder(model: CausalLM, **inputs: Any) -> Tensor:
    """Last hidden states `(R, T, d)`, after the final norm."""
    return decoder(model)(use_cache=False, return_dict=True, **inputs).last_hidden_state


def run_rows(model: CausalLM, batch: Batch) -> Tensor:
    """Last hidden states of a batch's rows, `(R, T, d)`. Whatever change of this package is attached steers there the
    positions that its rule names."""
    mask = batch.attention_mask(text_config(model), unwrap(model).dtype)
    with rows_rotated_alone(model), ExitStack() as stack:
        for handle in handles_on(model):
            stack.enter_context(handle.steer_only(batch.steered(handle.positions)))
        return run_decoder(model, input_ids=batch.tokens, position_ids=batch.position_ids, attention_mask=mask)


@contextmanager
def block_outputs(model: CausalLM, layer: int) -> Iterator[list[Tensor]]:
    """Inside, every output `(R, T, d)` of a decoder block is appended to the list."""
    found: list[Tensor] = []
    block = decoder_layers(model)[layer]
    hook = block.register_forward_hook(lambda m, a, out: found.append(out[0] if isinstance(out, tuple) else out))
    try:
        yield found
    finally:
        hook.remove()
