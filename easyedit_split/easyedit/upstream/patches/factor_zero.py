"""Factor 0 is no steering, unless nulling out is asked for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from ..edit import Refused, Source
from ..patch import TRAINERS, Patch

ASKED = '(steering_factor == 0.0) & bool(self.subspaces[0].get("null_it_out", False))'


def apply(root: Path) -> None:
    source = Source(root, "steer/models/interventions.py")
    vector = source.one(ast.ClassDef, lambda n: n.name == "VectorIntervention", None, "class VectorIntervention")
    source.replace(source.assignment("zero_mask", source.function("forward", vector)).value, ASKED)
    source.save()
    for name in TRAINERS:
        source = Source(root, name)
        made = list(source.all(ast.Dict, _is_subspace, source.function("train")))
        if not made:
            raise Refused(f"{name} hands no steering factors over")
        for node in made:
            source.insert(node.values[0], ', "null_it_out": self.hparams.substraction_type == "null_it_out"')
        source.save()


def _is_subspace(node: Any) -> bool:
    return [ast.unparse(key) for key in node.keys] == ["'steering_factor'"]


PATCH = Patch(
    6,
    "factor-zero",
    "Keep steering factor 0 a no-op",
    "In `VectorIntervention` a factor of 0 removes the projection on the vector instead of doing nothing, which puts a "
    "step into every curve over factors. The trainers now say when nulling out is meant (`substraction_type: "
    "null_it_out`).",
    apply,
    cures=("test_factor_zero_changes_nothing",),
    defects=("test_factor_zero_ablates_the_projection",),
)
