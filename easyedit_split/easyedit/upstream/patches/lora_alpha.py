"""`lora_alpha` scales a LoRA, as it does elsewhere; files that never meant it lose it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from ..edit import Refused, Source, edit_lines
from ..patch import Patch

FIELD = "lora_alpha: float = None  # a LoRA is scaled by lora_alpha / low_rank_dimension; None: not scaled"
ALPHA = ', alpha=getattr(self.hparams, "lora_alpha", None) or kwargs.get("low_rank_dimension", 1)'
EXPERIMENTS = "hparams/Steer/experiment_hparams/spilt_experiment"


def apply(root: Path) -> None:
    for method in ("sft", "spilt"):
        source = Source(root, f"steer/vector_generators/{method}/generate_{method}_hparams.py")
        rank = source.one(
            ast.AnnAssign, lambda n: ast.unparse(n.target) == "low_rank_dimension", None, "field low_rank_dimension"
        )
        source.after(rank, FIELD)
        source.save()

    source = Source(root, "steer/trainer/SFTTrainer.py")
    made = source.one(ast.Call, lambda n: ast.unparse(n.func) == "LoraIntervention", None, "LoRA made for training")
    source.insert(next(keyword.value for keyword in made.keywords if keyword.arg == "dropout"), ALPHA)
    source.save()

    source = Source(root, "steer/models/interventions.py")
    lora = source.one(ast.ClassDef, lambda n: n.name == "LoraIntervention", None, "class LoraIntervention")
    product = source.assignment("lora_weights", source.function("forward", lora), _is_product)
    source.replace(product.value, f"(self.lora_alpha / self.r) * ({ast.unparse(product.value)})")
    source.save()

    files = [f for m in ("sft", "spilt") for f in sorted((root / EXPERIMENTS).glob(f"*/*/{m}/generate_*lora*.yaml"))]
    if not files:
        raise Refused(f"{EXPERIMENTS} has no LoRA files of sft and spilt")
    for file in files:
        edit_lines(file, lambda lines: [line for line in lines if not line.startswith("lora_alpha:")])


def _is_product(node: Any) -> bool:
    return isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.MatMult)


PATCH = Patch(
    5,
    "lora-alpha",
    "Use lora_alpha in SFT and SPILT",
    "`lora_alpha` is no field of the two methods, so it is dropped in silence. Add it and scale by alpha over rank. "
    "The shipped files lose the line, which never acted, so that their runs stay what they are; files saved so far "
    "have alpha equal to the rank, and stay the same too.",
    apply,
    cures=("test_lora_alpha_scales", "test_shipped_lora_files_parse_and_have_no_alpha"),
    defects=("test_lora_alpha_is_dropped",),
)
