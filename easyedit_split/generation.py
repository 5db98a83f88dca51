"""Text from a model, steered or not: batched, left-padded, stopped at the end of the turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import ConfigError, DataError


def generate(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 16,
    temperature: float = 0.0,
    seed: int = 0,
    chat: bool = True,
    system_prompt: str = "",
    streamer: Any = None,
    progress: bool = False,
) -> list[str]:
    """Answers to `questions`; attach an artifact around the call to steer them.

    A `(B,)` strength is one a question, and needs all questions in one batch.

    Args:
        temperature: 0 for greedy decoding.
        streamer: a transformers streamer; only with one question.

    Raises:
        ConfigError: a number out of range.
        DataError: an empty prompt, or one that leaves no room for `max_new_tokens` in the model's context.
    """
    import torch
    from tqdm import tqdm

    from .models import context_length, held_still, random_state_kept
    from .sites import embedding_device
    from .tokens import Encoder

    if max_new_tokens < 1 or batch_size < 1 or temperature < 0:
        raise ConfigError(
            f"max_new_tokens = {max_new_tokens}, batch_size = {batch_size}, temperature = {temperature}: "
            "give 1 or more, 1 or more, 0 or more"
        )
    encoder = Encoder(tokenizer, chat, system_prompt)
    prompts = [encoder.prompt(q) for q in questions]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (encoder.stop_ids() or [0])[0]
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "use_cache": True,  # position rules tell new tokens from the prompt's by the cache
        "pad_token_id": pad,
        "eos_token_id": encoder.stop_ids() or None,
    }
    options.update({"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False})
    _check_lengths(prompts, max_new_tokens, context_length(model))
    order = list(range(len(prompts)))
    if len(order) > batch_size:  # one batch keeps its order, so that a `(B,)` strength meets its questions
        order.sort(key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    device = embedding_device(model)
    starts = tqdm(range(0, len(order), batch_size), "generate", unit="batch", disable=not progress)
    with held_still(model), torch.no_grad(), random_state_kept():
        torch.manual_seed(seed)
        for start in starts:
            chosen = order[start : start + batch_size]
            ids, mask = _left_padded([prompts[i] for i in chosen], pad)
            out = model.generate(ids.to(device), attention_mask=mask.to(device), streamer=streamer, **options)
            for i, row in zip(chosen, out[:, ids.shape[1] :].tolist(), strict=True):
                answers[i] = tokenizer.decode(row, skip_special_tokens=True)
    return answers


def _check_lengths(prompts: list[list[int]], new: int, context: int | None) -> None:
    for number, prompt in enumerate(prompts):
        if context is not None and len(prompt) + new > context:
            raise DataError(
                f"question {number} has {len(prompt)} tokens, and {new} new ones would not fit the model's context of "
                f"{context}: shorten the question, or lower max_new_tokens"
            )


def _left_padded(rows: list[list[int]], pad: int) -> Any:
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return ids, mask
