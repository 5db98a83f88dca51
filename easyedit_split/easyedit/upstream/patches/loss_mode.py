"""The loss mode measures the trained vector."""

from __future__ import annotations

import ast
from pathlib import Path

from ..edit import Source
from ..patch import Patch

TRAINED = """
# an intervention, as for the other two forms: a bare tensor is ignored by make_model
from ...models.interventions import VectorIntervention
row = vectors if vectors.dim() == 1 else vectors[concept_id]
init_vector = VectorIntervention(embed_dim=row.shape[-1], low_rank_dimension=1, init_vector=row).to(args.device)
"""


def apply(root: Path) -> None:
    source = Source(root, "steer/vector_generators/sft/generate_sft.py")
    function = source.function("generate_sft")
    bare = source.assignment(
        "init_vector", function, lambda n: isinstance(n.value, ast.Name) and n.value.id == "vectors"
    )
    source.replace(bare, TRAINED)
    source.save()


PATCH = Patch(
    2,
    "loss-mode",
    "Use the trained vector in loss mode",
    "In `--mode loss` with `intervention_method: vector`, the loaded tensor is not an intervention, so a fresh random "
    "vector is measured instead. Wrap it, as the LoRA and local weight branches do.",
    apply,
    cures=("test_loss_mode_measures_the_trained_vector",),
    defects=("test_loss_mode_measures_a_random_vector",),
)
