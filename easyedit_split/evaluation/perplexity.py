"""Perplexity of generated text under the unsteered model: how far steering left what the model would say."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        encoded.append(EncodedPair(tuple(encoder.prompt(question)), answer, answer[:1]))  # a pair has two answers
    scorer = PairScorer(model, encoded)
    loss = tokens = 0.0
    with eval_mode_frozen(model), torch.no_grad():
        for rows in scorer.lengths.argsort().split(batch_size):
            found = scorer.losses(rows)
            loss += float(found.matching.double().sum())
            tokens += float(found.matching_tokens.sum())
    return math.exp(min(loss / tokens, 700.0))
