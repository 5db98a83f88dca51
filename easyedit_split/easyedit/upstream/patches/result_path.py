"""The path that is printed is the one that was written."""

from __future__ import annotations

from pathlib import Path

from ..edit import Source
from ..patch import Patch

WRITTEN = (
    "os.path.join(hparams.steer_vector_output_dir, f\"{alg_name}_{getattr(hparams, 'intervention_method', 'vector')}\")"
)


def apply(root: Path) -> None:
    source = Source(root, "steer/vector_generators/vector_generators.py")
    source.replace(source.assignment("now_path", source.function("generate_vectors")).value, WRITTEN)
    source.save()


PATCH = Patch(
    14,
    "result-path",
    "Print the folder that vectors are saved to",
    "`BaseVectorGenerator` prints (and looks for older results in) `<method>_vector` whatever the form; LoRA and local "
    "weight are saved to `<method>_lora` and `<method>_local_weight`.",
    apply,
    cures=("test_printed_folder_is_the_one_written",),
    defects=("test_another_folder_is_printed_than_is_written",),
)
