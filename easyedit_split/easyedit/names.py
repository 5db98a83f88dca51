"""EasyEdit's names for what this package calls otherwise: methods, models, and the folders of vectors.

A user who changes `alg_name: spilt` to `split` in EasyEdit's files leaves its scripts as they are, and these name
folders by their own `--method`.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import ArtifactError
from ..folders import layers_of

#: EasyEdit's method -> ours.
METHOD_OF = {"spilt": "split", "sft": "unified_sft", "reps": "unified_reps", "caa": "unified_diffmean"}
_INSTEAD_OF = {ours: theirs for theirs, ours in METHOD_OF.items()}

#: EasyEdit's folder of a model in `hparams/Steer/experiment_hparams` -> the folder of our files.
MODEL_OF = {
    "qwen2.5-7b-it": "qwen2.5-7b-instruct",
    "qwen-2.5-7b-it": "qwen2.5-7b-instruct",
    "llama-3.1-8b-it": "llama-3.1-8b-instruct",
    "gemma-it": "gemma-2-9b-it",
}


def easyedit_name(method: str) -> str:
    """EasyEdit's method whose place ours takes: `spilt` for `split`."""
    return _INSTEAD_OF[method]


def trained_folder(given: str | Path, method: str, layer: int) -> Path:
    """The folder that holds what `method` trained for `layer`, where EasyEdit's scripts name `given`.

    That is `given`, or, where it is named after EasyEdit's own method and holds nothing of the layer, the folder
    beside it that our training wrote: `spilt_lora` -> `split_lora`.

    Raises:
        ArtifactError: both hold the layer, so that it is open which one is meant.
    """
    given = Path(given)
    prefix = f"{_INSTEAD_OF.get(method, method)}_"
    if not given.name.startswith(prefix):
        return given
    ours = given.with_name(f"{method}_{given.name.removeprefix(prefix)}")
    if not _holds(ours, layer):
        return given
    if _holds(given, layer):
        raise ArtifactError(
            f"{given} and {ours.name} beside it both hold layer {layer}, EasyEdit's result and ours; "
            f"move one of them away, or set steer_vector_load_dir to {ours}"
        )
    return ours


def _holds(folder: Path, layer: int) -> bool:
    files = (file for below in ("", "concept_*/") for file in folder.glob(f"{below}layer_*"))
    return any(layer in layers_of(file) for file in files)
