"""How far a change moves what the model would say next: KL divergence from the unsteered model, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..changes.attach import Handle
from ..data.tokens import EncodedPair
from ..models.guards import eval_mode_frozen
from ..models.protocols import CausalLM
from .scorer import PairScorer, halve_on_oom
from .token_losses import log_probabilities

STEP = 16  # strengths a batch, one a row


def kl_from_unsteered(
    model: CausalLM, texts: Sequence[tuple[Sequence[int], Sequence[int]]], handle: Handle, strengths: Sequence[float],
    done: Callable[[int], object] = lambda n: None,
) -> np.ndarray:  # fmt: skip
    """KL(unsteered || steered) of the next-token distributions, `(M,)` nats a token, mean over the texts' tokens.

    Both models read the same texts. It says nothing of texts that the steered model would write itself, and a token
    that matters counts as much as one that does not.

    Args:
        texts: token ids of a prompt and of what follows it; compared is what is predicted there. All not empty.
        handle: the change, attached; its dial is left at the last strength.
        done: told after every batch how many (text, strength) it held.
    """
    encoded = [EncodedPair(tuple(prompt), tuple(answer), tuple(answer[:1])) for prompt, answer in texts]
    scorer = PairScorer(model, encoded, handle)
    total = np.zeros(len(strengths))
    grid = torch.tensor(list(strengths), dtype=torch.float32)

    def add(number: int, plain: Tensor, chosen: Tensor) -> None:
        handle.set_strength(grid[chosen])
        found = _states(scorer, number, len(chosen))
        for k, states in zip(chosen.tolist(), found, strict=True):
            steered = log_probabilities(model, states)
            total[k] += max(0.0, float((plain.exp() * (plain - steered)).double().sum()))

    with eval_mode_frozen(model), torch.no_grad():
        for number in range(len(encoded)):
            handle.set_strength(0.0)
            plain = log_probabilities(model, _states(scorer, number, 1)[0])
            for chosen in torch.arange(len(grid)).split(STEP):
                halve_on_oom(lambda part, n=number, p=plain: add(n, p, part), chosen)  # type: ignore[misc]
                done(len(chosen))
    return total / sum(len(pair.matching) for pair in encoded)


def _states(scorer: PairScorer, number: int, times: int) -> list[Tensor]:
    """Hidden states `(T, d)` that predict the text of a pair, at each strength of the dial."""
    states, batch = scorer.states(torch.full((times,), number))
    owner = batch.owner.to(states.device)
    return [states[owner == 2 * k] for k in range(times)]
