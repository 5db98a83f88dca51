"""What training came to: the losses of training pairs without the change and with it, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..changes.artifact import SteeringArtifact
from ..data.pairs import PreferencePair
from ..data.tokens import Encoder
from ..models.guards import eval_mode_frozen
from ..models.parts import context_length, embedding_device
from ..models.protocols import CausalLM, Tokenizer
from ..scoring.scorer import PairLosses, PairScorer, halve_on_oom, joined, token_runs
from .objectives import AnswerLosses, Objective

PAIRS = 64


@dataclass(frozen=True)
class Losses:
    """Means over pairs, nats a token: the objective, `L_p`, `L_n`; and the share of pairs past the margin."""

    objective: float
    matching: float
    not_matching: float
    past: float


@dataclass(frozen=True)
class Summary:
    """Losses of `pairs` training pairs at m = 0 (`first`) and at the trained strength `m` (`last`); `margin` in nats a
    token; `updates` of the optimiser, 0 where there is none."""

    pairs: int
    m: float
    margin: float
    updates: int
    first: Losses
    last: Losses

    @property
    def grew(self) -> bool:
        """Whether the objective is not lower than it was, or no number."""
        return not self.last.objective <= self.first.objective

    def __str__(self) -> str:
        a, b = self.first, self.last
        updates = f"{self.updates} updates; " if self.updates else ""
        return (
            f"{updates}{self.pairs} training pairs at m = 0 and m = {self.m:g}, nats a token: "
            f"L_p {_short(a.matching)} -> {_short(b.matching)}, L_n {_short(a.not_matching)} -> "
            f"{_short(b.not_matching)}; past the margin of {self.margin:g}: {a.past:.0%} -> {b.past:.0%}"
        )


def summarise(
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    artifact: SteeringArtifact,
    objective: Objective,
    factors: Sequence[float],
    updates: int,
) -> Summary:
    """Score up to 64 training pairs without the change, and at the middle one of the trained `factors`.

    Raises:
        SiteError: the model's losses cannot be computed (see `scoring.probe`).
    """
    m = sorted(factors, key=abs)[len(factors) // 2]
    encoder = Encoder(tokenizer, artifact.origin.get("chat", True), artifact.origin.get("system_prompt", ""))
    encoded = encoder.pairs(pairs[:PAIRS], context_length(model))
    with eval_mode_frozen(model), torch.no_grad(), artifact.attach(model, 0.0) as handle:
        scorer = PairScorer(model, encoded, handle)
        order = scorer.lengths.argsort(stable=True)
        found = []
        for strength in (0.0, m):
            handle.set_strength(strength)
            parts = [
                part
                for run in token_runs(scorer.lengths[order], embedding_device(model))
                for part in halve_on_oom(scorer.losses, order[run])
            ]
            found.append(joined(parts))
    margin = float(getattr(objective, "theta", 0.0))
    first, last = (_means(losses, found[0], objective, margin) for losses in found)
    return Summary(len(encoded), m, margin, updates, first, last)


def _means(losses: PairLosses, reference: PairLosses, objective: Objective, margin: float) -> Losses:
    answers = AnswerLosses(
        losses.matching, losses.not_matching, losses.matching_tokens, losses.not_matching_tokens,
        reference.matching, reference.not_matching,
    )  # fmt: skip
    wanted, unwanted = answers.wanted, answers.unwanted
    return Losses(
        _mean(objective(answers)), _mean(wanted), _mean(unwanted), _mean((unwanted - wanted >= margin).float())
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.3g}"
