"""One steering factor a pair, shared by its two answers."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from ..edit import Source
from ..patch import TRAINERS, Patch

ONE = """
# one factor a pair: its two answers are compared under the same steering
factor = random.choice(self.hparams.steering_factors)
if "_add" not in pair:
    factor = 0.0 if self.hparams.substraction_type == "null_it_out" else -factor
for inputs in (winning_inputs, losing_inputs):
    inputs["steering_factors"].append(torch.tensor(float(factor)))
"""


def apply(root: Path) -> None:
    for name in TRAINERS:
        source = Source(root, name)
        source.replace(source.one(ast.If, _chooses, source.function("train"), "choice of factors by pair"), ONE)
        source.save()


def _chooses(node: Any) -> bool:
    test = node.test
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Constant) and test.left.value == "_add"


PATCH = Patch(
    3,
    "one-factor",
    "Draw one steering factor per preference pair",
    "The winning and the losing answer of a pair are steered with two independently drawn factors, so the margin "
    "compares answers of differently steered models. Draw one and use it for both.",
    apply,
    cures=("test_answers_of_a_pair_share_their_strength",),
    defects=("test_answers_of_a_pair_get_different_strengths",),
)
