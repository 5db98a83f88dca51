"""The learning-rate schedule counts the steps that are made."""

from __future__ import annotations

from pathlib import Path

from ..edit import Source
from ..patch import TRAINERS, Patch

#: The optimiser also steps at the end of an epoch.
STEPS = "self.hparams.n_epochs * -(-len(train_dataloader) // self.hparams.gradient_accumulation_steps)"


def apply(root: Path) -> None:
    for name in TRAINERS:
        source = Source(root, name)
        source.replace(source.assignment("num_training_steps", source.function("train")).value, STEPS)
        source.save()


PATCH = Patch(
    8,
    "schedule",
    "Count the last accumulation step in the schedule",
    "The optimizer steps at the end of every epoch too, but the schedule rounds down. With more accumulation steps "
    "than batches it has no steps at all, and everything is trained with learning rate 0.",
    apply,
    cures=("test_accumulation_beyond_the_loader_trains", "test_schedule_ends_with_the_last_step"),
    defects=("test_accumulation_beyond_the_loader_trains_with_learning_rate_zero",),
)
