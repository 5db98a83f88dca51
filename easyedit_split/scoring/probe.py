"""Whether a model can be scored the way this package scores: measured, on three short answers, before it is.

Scoring runs the decoder alone, projects answer positions to the vocabulary by itself, and puts both answers of a pair
in one row. That is the model's own loss only where nothing else happens to its logits (Granite and Cohere scale them),
nothing is put before its tokens (prompt tuning), and tokens meet in attention alone (a recurrence or a convolution
carries the first answer into the second).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..changes.attach import handles_on
from ..data.tokens import EncodedPair
from ..errors import SiteError
from ..models.guards import eval_mode_frozen
from ..models.parts import embedding_device, unwrap
from .forward import run_rows
from .rows import lay_out
from .token_losses import token_losses

# the second answer is the same in both, behind first answers of one length
_PAIRS = [EncodedPair((1, 2, 3), first, (7, 8, 9, 10)) for first in ((4, 5, 6), (6, 4, 11))]
_FIRST, _BOTH = 3, 7  # tokens of the first answer, and of both
EXACT, ROUNDED = 1e-3, 0.1  # relative, of a token's loss: in float32, and in fewer bits


def rows_can_be_shared(model: Any) -> bool:
    """Whether both answers of a pair may share a row.

    Raises:
        SiteError: even in rows of their own they would not get the model's own losses.
    """
    with torch.no_grad(), eval_mode_frozen(model), ExitStack() as stack:
        for handle in handles_on(model):
            stack.enter_context(handle.silenced())
        own = _own(model)
        if not bool(own.isfinite().all()):
            return takes_prepared_masks(model)  # what is wrong with the weights is for the caller to say
        if takes_prepared_masks(model):
            shared = _ours(model, packed=True)
            if shared is not None and _same(model, shared, own) and not _leaks(shared):
                return True
        alone = _ours(model, packed=False)
        if alone is None or not _same(model, alone, own):
            raise SiteError(
                f"{type(unwrap(model)).__name__} does more to its logits than project the last hidden states, or reads "
                "more than its tokens: its losses cannot be computed here, so use a supported architecture without "
                "prompt tuning"
            )
    return False


def takes_prepared_masks(model: Any) -> bool:
    """Whether the model's attention accepts a four-dimensional mask."""
    return getattr(unwrap(model).config, "_attn_implementation", "eager") in ("eager", "sdpa")


def _own(model: Any) -> Tensor:
    """Losses of every answer token by the model's own logits, float32."""
    batch = lay_out(_PAIRS, packed=False).to(embedding_device(model))
    logits = model(input_ids=batch.tokens, use_cache=False, return_dict=True).logits
    place = logits.device
    wanted = logits[batch.rows.to(place), batch.cols.to(place)].float()
    return F.cross_entropy(wanted, batch.targets.to(place), reduction="none").cpu()


def _ours(model: Any, packed: bool) -> Tensor | None:
    """The same losses as scoring computes them; None where the model does not take such rows."""
    batch = lay_out(_PAIRS, packed).to(embedding_device(model))
    try:
        hidden = run_rows(model, batch)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return None
    picked = hidden[batch.rows.to(hidden.device), batch.cols.to(hidden.device)]
    return token_losses(model, picked, batch.targets).cpu()


def _same(model: Any, found: Tensor, expected: Tensor) -> bool:
    exact = unwrap(model).dtype == torch.float32 and getattr(unwrap(model), "quantization_method", None) is None
    tolerance = EXACT if exact else ROUNDED
    return bool(((found - expected).abs() <= tolerance * (1 + expected.abs())).all())


def _leaks(losses: Tensor) -> bool:
    """Whether the second answer's losses depend on the first answer."""
    one, other = losses.split(_BOTH)
    return bool(((one - other)[_FIRST:].abs() > EXACT * (1 + one[_FIRST:].abs())).any())
