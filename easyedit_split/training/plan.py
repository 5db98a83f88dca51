"""Which pairs meet which strengths at which step of training: a function of the seed and the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings.hyperparameters import TrainConfig


@dataclass(frozen=True)
class Draw:
    """One micro-batch: pairs, signs (+1 as given, -1 mirrored) and strengths, each `(B,)`."""

    pairs: Tensor
    signs: Tensor
    strengths: Tensor

    def __getitem__(self, rows: slice) -> Draw:
        return Draw(self.pairs[rows], self.signs[rows], self.strengths[rows])


class Plan:
    """Which pairs meet which strengths at which step: a function of the seed."""

    def __init__(self, n_pairs: int, config: TrainConfig) -> None:
        self.n_pairs, self.config = n_pairs, config
        self.micro_batches = math.ceil(n_pairs / config.batch_size)
        self.steps_per_epoch = math.ceil(self.micro_batches / config.gradient_accumulation_steps)
        self.steps = config.n_epochs * self.steps_per_epoch

    def draws(self, step: int) -> list[Draw]:
        """The micro-batches of one optimiser step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(seed_of(self.config, epoch))
        order = torch.randperm(self.n_pairs, generator=generator)
        signs = torch.tensor([1.0 if d == "add" else -1.0 for d in self.config.directions])
        factors = torch.tensor(self.config.steering_factors)
        choice = torch.randint(len(factors), (self.n_pairs, len(signs)), generator=generator)
        size, take = self.config.batch_size, self.config.gradient_accumulation_steps
        chunks = range(self.micro_batches)[within * take : (within + 1) * take]
        return [
            Draw(
                order[c * size : (c + 1) * size].repeat_interleave(len(signs)),
                signs.repeat(len(order[c * size : (c + 1) * size])),
                factors[choice[order[c * size : (c + 1) * size]]].flatten(),
            )
            for c in chunks
        ]


def seed_of(config: TrainConfig, number: int) -> int:
    """A seed for one epoch or step, within what torch takes."""
    return (config.seed * 1_000_003 + number) % 2**63
