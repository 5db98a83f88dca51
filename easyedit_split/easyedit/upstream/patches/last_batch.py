"""A last batch that is not full is trained on."""

from __future__ import annotations

import ast
from pathlib import Path

from ..edit import Source
from ..patch import TRAINERS, Patch

SIZE = """
# the last batch of an epoch may be smaller than batch_size
rows = len(batch[f"{self.preference_pairs[0]}_winning_input_ids"])
expanded_batch_size = rows * len(self.preference_pairs)
"""


def apply(root: Path) -> None:
    for name in TRAINERS:
        source = Source(root, name)
        train = source.function("train")
        source.replace(source.assignment("expanded_batch_size", train), SIZE)
        for loop in source.all(ast.For, lambda n: ast.unparse(n.iter) == "range(self.hparams.batch_size)", train):
            source.replace(loop.iter, "range(rows)")
        source.save()


PATCH = Patch(
    9,
    "last-batch",
    "Train on a last batch that is not full",
    "The number of rows is taken from `batch_size`, so a last, smaller batch stops training when both preference pairs "
    "are used (and always in RePS). Take it from the batch.",
    apply,
    cures=("test_last_batch_is_trained_on",),
    defects=("test_last_batch_that_is_not_full_crashes",),
)
