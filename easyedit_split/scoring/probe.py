"""Whether a model can be scored the way this package scores: measured, on short answers and the longest, before it is.

Scoring runs the decoder alone, projects answer positions to the vocabulary by itself, and puts both answers of a pair
in one row. That is the model's own loss only where nothing else happens to its logits than a known scale, nothing is
put before its tokens (prompt tuning), tokens meet in attention alone (a recurrence or a convolution carries the first
answer into the second), and a token's place is its position (a window may count columns, and a rotation look at the
largest position of the call).

Blocks below the steered one run once and are stood in for by what they returned. That is the model only where a block
takes one state a token from the one below, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..changes.attach import handles_on
from ..data.tokens import EncodedPair
from ..errors import SiteError
from ..models.guards import eval_mode_frozen
from ..models.parts import embedding_device, unwrap
from ..models.protocols import CausalLM
from .forward import run_decoder, run_rows
from .lower_blocks import LowerBlocks
from .rows import Batch, lay_out
from .token_losses import token_losses

# the second answer is the same in both, behind first answers of one length
_PAIRS = [EncodedPair((1, 2, 3), first, (7, 8, 9, 10)) for first in ((4, 5, 6), (6, 4, 11))]
_FIRST, _BOTH = 3, 7  # tokens of the first answer, and of both
EXACT, ROUNDED = 1e-3, 0.1  # relative, of a token's loss: in float32, and in fewer bits
_ANSWERS: ContextVar[dict[Hashable, bool] | None] = ContextVar("answers", default=None)


@contextmanager
def probed_once() -> Iterator[None]:
    """Inside, a probe of the same model and lengths runs once.

    For a caller who knows that the model, and what else is hooked to it, stays the same meanwhile.
    """
    if _ANSWERS.get() is not None:
        yield
        return
    token = _ANSWERS.set({})
    try:
        yield
    finally:
        _ANSWERS.reset(token)


def _once(key: Hashable, probe: Callable[[], bool]) -> bool:
    answers = _ANSWERS.get()
    if answers is None:
        return probe()
    if key not in answers:
        answers[key] = probe()
    return answers[key]


def rows_can_be_shared(model: CausalLM, pairs: Sequence[EncodedPair] = ()) -> bool:
    """Whether both answers of a pair may share a row: on the probe's short pairs, and on the longest of `pairs`.

    Raises:
        SiteError: even in rows of their own they would not get the model's own losses.
    """
    longest = max(pairs, key=len) if pairs else None
    return _once(("rows", id(model), longest), lambda: _rows_can_be_shared(model, longest))


def _rows_can_be_shared(model: CausalLM, longest: EncodedPair | None) -> bool:
    with _probing(model):
        expected = _losses_by_the_models_logits(model)
        if not bool(expected.isfinite().all()):
            return takes_prepared_masks(model)  # what is wrong with the weights is for the caller to say
        if takes_prepared_masks(model):
            shared = _losses_as_scored(model, _PAIRS, packed=True)
            if shared is not None and _agree(model, shared, expected) and not _answers_leak(shared):
                return longest is None or _holds_for_the_longest(model, longest)
        separate = _losses_as_scored(model, _PAIRS, packed=False)
        if separate is None or not _agree(model, separate, expected):
            raise SiteError(
                f"{type(unwrap(model)).__name__} does more to its logits than project the last hidden states, or reads "
                "more than its tokens: its losses cannot be computed here, so use a supported architecture without "
                "prompt tuning"
            )
    return False


def states_can_be_kept(model: CausalLM, layer: int, packed: bool) -> bool:
    """Whether the blocks below `layer` may be stood in for by the states that enter it."""
    return _once(("states", id(model), layer, packed), lambda: _states_can_be_kept(model, layer, packed))


def _states_can_be_kept(model: CausalLM, layer: int, packed: bool) -> bool:
    with _probing(model):
        batch = lay_out(_PAIRS, packed).to(embedding_device(model))
        blocks = LowerBlocks(model, layer)
        try:
            (states,) = blocks.run(lambda: run_rows(model, batch))
            if states.ndim != 3 or states.shape[:2] != batch.tokens.shape:
                return False
            with blocks.replaced(states):
                replayed = _losses_of(model, batch)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
            return False
        expected = _losses_of(model, batch)
        return not bool(expected.isfinite().all()) or _agree(model, replayed, expected)


def takes_prepared_masks(model: CausalLM) -> bool:
    """Whether the model's attention accepts a four-dimensional mask."""
    return getattr(unwrap(model).config, "_attn_implementation", "eager") in ("eager", "sdpa")


@contextmanager
def _probing(model: CausalLM) -> Iterator[None]:
    """Inside, the model is itself: unsteered, in eval mode, without gradients."""
    with torch.no_grad(), eval_mode_frozen(model), ExitStack() as stack:
        for handle in handles_on(model):
            stack.enter_context(handle.silenced())
        yield


def _losses_by_the_models_logits(model: CausalLM) -> Tensor:
    """Losses of every answer token of the probe's pairs, float32."""
    batch = lay_out(_PAIRS, packed=False).to(embedding_device(model))
    logits = model(input_ids=batch.tokens, use_cache=False, return_dict=True).logits
    place = logits.device
    wanted = logits[batch.rows.to(place), batch.cols.to(place)].float()
    return F.cross_entropy(wanted, batch.targets.to(place), reduction="none").cpu()


def _losses_as_scored(model: CausalLM, pairs: Sequence[EncodedPair], packed: bool) -> Tensor | None:
    """The losses of every answer token as scoring computes them; None where the model does not take such rows."""
    batch = lay_out(pairs, packed).to(embedding_device(model))
    try:
        return _losses_of(model, batch)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        return None


def _losses_of(model: CausalLM, batch: Batch) -> Tensor:
    hidden = run_rows(model, batch)
    picked = hidden[batch.rows.to(hidden.device), batch.cols.to(hidden.device)]
    return token_losses(model, picked, batch.targets).cpu()


def _holds_for_the_longest(model: CausalLM, longest: EncodedPair) -> bool:
    """Whether the longest pair gets in one row what it gets in two, and leaves a short text beside it as it is."""
    if not _short_text_is_left_alone(model, len(longest)):
        return False
    shared, separate = (_losses_as_scored(model, [longest], packed) for packed in (True, False))
    return shared is not None and separate is not None and _agree(model, shared, separate)


def _short_text_is_left_alone(model: CausalLM, length: int) -> bool:
    """Whether a row's states are the same beside a row at the last positions of a text of `length` tokens."""
    prompt = torch.tensor([_PAIRS[0].prompt], device=embedding_device(model))
    near = torch.arange(prompt.shape[1], device=prompt.device)[None]
    far = near + max(0, length - 1 - prompt.shape[1])
    alone = run_decoder(model, input_ids=prompt, position_ids=near).float()
    beside = run_decoder(model, input_ids=torch.cat([prompt, prompt]), position_ids=torch.cat([near, far]))[:1].float()
    tolerance = EXACT if _is_exact(model) else ROUNDED
    return bool((beside - alone).norm() <= tolerance * alone.norm())


def _agree(model: CausalLM, found: Tensor, expected: Tensor) -> bool:
    tolerance = EXACT if _is_exact(model) else ROUNDED
    return bool(((found - expected).abs() <= tolerance * (1 + expected.abs())).all())


def _is_exact(model: CausalLM) -> bool:
    return unwrap(model).dtype == torch.float32 and getattr(unwrap(model), "quantization_method", None) is None


def _answers_leak(losses: Tensor) -> bool:
    """Whether the second answer's losses depend on the first answer."""
    one, other = losses.split(_BOTH)
    return bool(((one - other)[_FIRST:].abs() > EXACT * (1 + one[_FIRST:].abs())).any())
