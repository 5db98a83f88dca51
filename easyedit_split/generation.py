"""Text from a model, steered or not: batched, left-padded, stopped at the end of the turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from .data.tokens import Encoder, Turns
from .errors import ConfigError, DataError
from .models.guards import eval_mode_frozen, random_state_kept
from .models.parts import context_length, embedding_device, unwrap
from .models.protocols import CausalLM, Tokenizer

MIN_TEMPERATURE = 1e-3


def generate(
    model: CausalLM,
    tokenizer: Tokenizer,
    questions: Sequence[str | Turns],
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
    """Answers to `questions`, texts or conversations; attach an artifact around the call to steer them.

    What the model's own generation settings say (a repetition penalty, a nucleus) is left out.

    A `(B,)` strength is one a question, and needs all questions in one batch.

    Args:
        temperature: 0 for greedy decoding.
        streamer: a transformers streamer; only with one question.

    Raises:
        ConfigError: a number out of range.
        DataError: an empty prompt, or one that leaves no room for `max_new_tokens` in the model's context.
    """
    _check_numbers(max_new_tokens, batch_size, temperature, seed)
    if streamer is not None and len(questions) != 1:
        raise ConfigError(f"a streamer for {len(questions)} questions: it shows one")
    prompts, pad, stops = _encoded(model, tokenizer, questions, max_new_tokens, chat, system_prompt)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "use_cache": True,  # position rules tell new tokens from the prompt's by the cache
        "pad_token_id": pad,
        "eos_token_id": stops or None,
    }
    options.update({"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False})
    order = list(range(len(prompts)))
    if len(order) > batch_size:  # one batch keeps its order, so that a `(B,)` strength meets its questions
        order.sort(key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    device = embedding_device(model)
    starts = tqdm(range(0, len(order), batch_size), "generate", unit="batch", disable=not progress)
    with eval_mode_frozen(model), torch.no_grad(), random_state_kept(), _own_settings_aside(model):
        torch.manual_seed(seed)
        for start in starts:
            chosen = order[start : start + batch_size]
            ids, mask = _left_padded([prompts[i] for i in chosen], pad)
            out = model.generate(ids.to(device), attention_mask=mask.to(device), streamer=streamer, **options)
            for i, row in zip(chosen, out[:, ids.shape[1] :].tolist(), strict=True):
                answers[i] = tokenizer.decode(row, skip_special_tokens=True)
    return answers


def stream(
    model: CausalLM,
    tokenizer: Tokenizer,
    questions: Sequence[str | Turns],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    chat: bool = True,
    system_prompt: str = "",
) -> Iterator[list[str]]:
    """The texts of `generate`, token by token: after each token the texts so far, one a question.

    The questions are one batch, and each text is the one that `generate` gives for its question alone: every row is
    sampled from its own generator of the same seed, so that rows of different strengths differ by their strength.
    Between two tokens nothing is held: the caller may turn the dial, or let another stream take its turn.

    Raises:
        ConfigError: a number out of range.
        DataError: see `generate`.
    """
    _check_numbers(max_new_tokens, 1, temperature, seed)
    prompts, pad, stops = _encoded(model, tokenizer, questions, max_new_tokens, chat, system_prompt)
    device = embedding_device(model)
    ids, mask = (t.to(device) for t in _left_padded(prompts, pad))
    width, cache = ids.shape[1], None
    draws = [torch.Generator(device).manual_seed(seed) for _ in prompts]
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for _ in range(max_new_tokens):
        scores, cache = _next_scores(model, ids, mask, cache, pad)
        chosen = _chosen(scores, temperature, draws).masked_fill(done, pad)
        done |= torch.isin(chosen, torch.tensor(stops, dtype=torch.long, device=device))
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        yield [tokenizer.decode(row, skip_special_tokens=True) for row in ids[:, width:].tolist()]
        if done.all():
            return


def _next_scores(model: CausalLM, ids: Any, mask: Any, cache: Any, pad: int) -> tuple[Any, Any]:
    """Logits `(B, V)` of the next token, float32, and the cache that goes on from there."""
    with eval_mode_frozen(model), torch.no_grad(), _own_settings_aside(model):
        out = model.generate(
            ids, attention_mask=mask, past_key_values=cache, max_new_tokens=1, do_sample=False, use_cache=True,
            pad_token_id=pad, eos_token_id=None, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    return out.logits[0].float(), out.past_key_values


def _chosen(scores: Any, temperature: float, draws: Sequence[Any]) -> Any:
    """The next token of each row `(B,)`: the likeliest, or one drawn with the row's own generator."""
    if not temperature:
        return scores.argmax(dim=-1)
    odds = torch.softmax(scores / temperature, dim=-1)
    drawn = [torch.multinomial(row, 1, generator=draw) for row, draw in zip(odds, draws, strict=True)]
    return torch.cat(drawn)


def _encoded(
    model: CausalLM, tokenizer: Tokenizer, questions: Sequence[str | Turns], new: int, chat: bool, system_prompt: str
) -> tuple[list[list[int]], int, list[int]]:
    """Token ids of the prompts, the padding token, and the tokens that end an answer."""
    if isinstance(questions, str):
        raise DataError("questions is one text: give a list of them")
    encoder = Encoder(tokenizer, chat, system_prompt)
    prompts = [encoder.prompt(q) for q in questions]
    _check_lengths(prompts, new, context_length(model))
    stops = encoder.stop_ids()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stops or [0])[0]
    return prompts, pad, stops


def _check_numbers(max_new_tokens: int, batch_size: int, temperature: float, seed: int) -> None:
    for name, value, low in (("max_new_tokens", max_new_tokens, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or not low <= value < 2**63:
            raise ConfigError(f"{name} = {value!r} is out of range: give a whole number of {low} or more")
    if temperature and not MIN_TEMPERATURE <= temperature < math.inf:
        raise ConfigError(f"temperature = {temperature} is out of range: give 0, or {MIN_TEMPERATURE} or more")


@contextmanager
def _own_settings_aside(model: CausalLM) -> Iterator[None]:
    """Inside, the model (and what PEFT wrapped around it) has transformers' plain generation settings."""
    from transformers import GenerationConfig

    owners: list[Any] = [
        owner for owner in {id(m): m for m in (model, unwrap(model))}.values() if "generation_config" in vars(owner)
    ]
    before = [owner.generation_config for owner in owners]
    try:
        for owner in owners:
            owner.generation_config = GenerationConfig()
        yield
    finally:
        for owner, own in zip(owners, before, strict=True):
            owner.generation_config = own


def _check_lengths(prompts: list[list[int]], new: int, context: int | None) -> None:
    for number, prompt in enumerate(prompts):
        if context is not None and len(prompt) + new > context:
            raise DataError(
                f"question {number} has {len(prompt)} tokens, and {new} new ones would not fit the model's context of "
                f"{context}: shorten the question, or lower max_new_tokens"
            )


def _left_padded(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return ids, mask
