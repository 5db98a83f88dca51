"""Perplexity of generated text under the unsteered model: how far steering left what the model would say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..errors import DataError
from ..models.protocols import CausalLM, Tokenizer


def perplexity(
    model: CausalLM,
    tokenizer: Tokenizer,
    questions: Sequence[str],
    texts: Sequence[str],
    *,
    chat: bool = True,
    system_prompt: str = "",
    batch_size: int = 32,
) -> float:
    """`exp` of the mean loss a token of `texts`, each after its question, end-of-turn token included.

    Call it with nothing attached to the model. Every token of the corpus counts the same. The end-of-turn token is
    part of each text, also where generation was cut off by its length limit.

    Raises:
        DataError: no texts, or not one a question.
    """
    found = text_losses(
        model, tokenizer, questions, texts, chat=chat, system_prompt=system_prompt, batch_size=batch_size
    )
    return perplexity_of(found)


def text_losses(
    model: CausalLM,
    tokenizer: Tokenizer,
    questions: Sequence[str],
    texts: Sequence[str],
    *,
    chat: bool = True,
    system_prompt: str = "",
    batch_size: int = 32,
    ended: bool = True,
    done: Callable[[int], object] = lambda n: None,
) -> list[tuple[float, int]]:
    """Loss in nats, a sum, and number of tokens of each text after its question.

    Args:
        ended: with the end-of-turn token. Without it a text that was cut off counts like one that ended; a text that
            holds nothing else keeps it, so that an empty answer is judged as one.
        done: told after every batch how many texts it held.

    Raises:
        DataError: no texts, or not one a question.
    """
    import torch

    from ..data.tokens import EncodedPair, Encoder
    from ..models.guards import eval_mode_frozen
    from ..scoring.scorer import PairScorer

    if len(questions) != len(texts) or not texts:
        raise DataError(f"{len(texts)} texts for {len(questions)} questions: give one text a question, at least one")
    encoder = Encoder(tokenizer, chat, system_prompt)
    encoded = []
    for question, text in zip(questions, texts, strict=True):
        answer = tuple(encoder.answer(text))
        if not ended and encoder.end_id is not None:
            answer = answer[:-1] or answer
        encoded.append(EncodedPair(tuple(encoder.prompt(question)), answer, answer[:1]))  # a pair has two answers
    scorer = PairScorer(model, encoded)
    losses = [(0.0, 0)] * len(encoded)
    with eval_mode_frozen(model), torch.no_grad():
        for rows in scorer.lengths.argsort().split(batch_size):
            found = scorer.losses(rows)
            for i, loss in zip(rows.tolist(), found.matching.double().tolist(), strict=True):
                losses[i] = (loss, len(encoded[i].matching))
            done(len(rows))
    return losses


def perplexity_of(losses: Sequence[tuple[float, int]]) -> float:
    """`exp` of the mean loss a token, of losses and numbers of tokens (`text_losses`)."""
    return math.exp(min(sum(loss for loss, _ in losses) / sum(tokens for _, tokens in losses), 700.0))
