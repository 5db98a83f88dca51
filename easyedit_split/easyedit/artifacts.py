"""EasyEdit's own result files: `layer_<l>.pt` of `spilt`, `sft`, `reps` and `caa`, read and written.

EasyEdit keeps weights transposed against `nn.Linear`: `lora_A (in, r)`, `lora_B (r, out)`, `weight (in, out)`.
Files are read with `weights_only=True`, so that nothing in them can run.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..changes.artifact import SteeringArtifact
from ..changes.forms import LinearDelta, LoRA, from_tensors
from ..errors import ArtifactError, ConfigError
from ..folders import layers_of
from ..models.sites import Site
from ..settings.hyperparameters import COMPONENT_OF
from ..storage.files import write_bytes


def read_folder(folder: str | Path, layer: int, concept_id: int = 0) -> SteeringArtifact:
    """The change of one layer and concept from a folder that our or EasyEdit's training wrote. Of a change of several
    layers that is the part in this one.

    Raises:
        ArtifactError: see `read_whole` and `at_layer`.
    """
    return at_layer(read_whole(folder, layer, concept_id), layer)


def read_whole(folder: str | Path, layer: int, concept_id: int = 0) -> SteeringArtifact:
    """The change of one concept that acts in a layer, with what it does in others.

    Raises:
        ArtifactError: no such folder, nothing of that layer or concept in it, or a broken file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtifactError(f"the vector folder {folder} does not exist; give the folder that training wrote")
    concepts = {int(p.name[8:]): p for p in folder.glob("concept_*") if p.is_dir() and p.name[8:].isdigit()}
    if concepts:
        if concept_id not in concepts:
            raise ArtifactError(_no_concept(concept_id, concepts, str(folder)))
        folder = concepts[concept_id]
    own = next((f for f in sorted(folder.glob("layer_*.safetensors")) if layer in layers_of(f)), None)
    theirs = folder / f"layer_{layer}.pt"
    if own is not None:
        artifact = SteeringArtifact.load(own)
        if not concepts:
            _check_single(concept_id, artifact.origin.get("concept_id"), str(own))
        return artifact
    if theirs.is_file():
        return read_pt(theirs, layer, concept_id)
    held = ", ".join(sorted(p.name for p in folder.glob("layer_*"))) or "no layer"
    raise ArtifactError(f"{folder} has nothing for layer {layer}, it holds {held}; set layers to what was trained")


def read_pt(path: str | Path, layer: int, concept_id: int = 0) -> SteeringArtifact:
    """Read one of EasyEdit's `.pt` files.

    Raises:
        ArtifactError: the file is no such file, or lacks the concept.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch.load raise almost anything
        reason = str(error).strip().split("\n")[0]
        raise ArtifactError(f"{path} cannot be read as tensors ({reason}); write it again") from None
    return from_state(state, layer, concept_id, str(path))


def from_state(value: Any, layer: int, concept_id: int = 0, where: str = "the vectors given") -> SteeringArtifact:
    """The change in what EasyEdit's training returns or keeps for one layer; ours passes through.

    Raises:
        ArtifactError: an unknown kind of value, or a concept it does not hold.
    """
    if isinstance(value, SteeringArtifact):
        _check_single(concept_id, value.origin.get("concept_id"), where)
        return value
    if isinstance(value, Mapping) and value and all(isinstance(key, int) for key in value):
        if concept_id not in value:
            raise ArtifactError(_no_concept(concept_id, value, where))
        chosen = value[concept_id]
        return chosen if isinstance(chosen, SteeringArtifact) else _convert(chosen, layer, concept_id, where)
    if isinstance(value, Tensor) and value.ndim == 2:
        if not 0 <= concept_id < len(value):
            raise ArtifactError(_no_concept(concept_id, range(len(value)), where))
        return _convert(value[concept_id], layer, concept_id, where)
    _check_single(concept_id, None, where)
    return _convert(value, layer, concept_id, where)


def at_layer(artifact: SteeringArtifact, layer: int) -> SteeringArtifact:
    """What a change does in one layer; a change of one layer as it is.

    Raises:
        ArtifactError: nothing there, or several changes.
    """
    parts = [part for part in artifact.parts if part.site.layer == layer]
    if len(parts) != 1:
        raise ArtifactError(
            f"the change at {artifact.site} has {len(parts)} parts in layer {layer}, and EasyEdit takes one a layer"
        )
    return parts[0]


def to_state(artifact: SteeringArtifact, dtype: torch.dtype | None = None) -> Any:
    """What EasyEdit's own training would have kept: a `(d,)` tensor, or a dictionary with transposed weights.

    Args:
        dtype: the model's, which EasyEdit's own appliers need (float32 weights stop a bfloat16 model); None: float32.

    Raises:
        ArtifactError: EasyEdit has no file for this change.
    """
    tensors = {name: tensor.cpu().to(dtype, copy=True) for name, tensor in artifact.delta.tensors().items()}
    if artifact.form == "vector":
        if not artifact.acts_at_block_output:
            raise ArtifactError(why_no_plain_vector(artifact))
        return tensors["db"]
    names = [name for name, component in COMPONENT_OF.items() if component == artifact.site.component]
    if not names:
        raise ArtifactError(
            f"EasyEdit has no name for a change at {artifact.site}; only mlp.down_proj ('mlp_mid') can be kept so"
        )
    about = {"intervention_components": names[0], "concept_id": artifact.origin.get("concept_id") or 0}
    if isinstance(artifact.delta, LoRA):
        rank = artifact.delta.rank
        factors = {"lora_A": tensors["A"].T.contiguous(), "lora_B": tensors["B"].T.contiguous()}
        return {**factors, "r": rank, "alpha": rank, **about}
    return {"weight": tensors["dW"].T.contiguous(), "bias": tensors["db"], **about}


def write_pt(artifact: SteeringArtifact, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
    """Write EasyEdit's `layer_<l>.pt`, atomically; returns its path. `dtype`: see `to_state`.

    Raises:
        ArtifactError: EasyEdit has no file for this change, or it cannot be written.
    """
    content = io.BytesIO()  # torch.save to a full disk raises no OSError
    torch.save(to_state(artifact, dtype), content)
    return write_bytes(Path(folder) / f"layer_{artifact.site.layer}.pt", content.getvalue())


def why_no_plain_vector(artifact: SteeringArtifact) -> str:
    """Why EasyEdit's plain vector file would not be this change."""
    if artifact.site.component == "mlp.down_proj":
        return (
            f"the vector of {artifact.site} is not a vector at the block's output, because a norm or a multiplier "
            "follows the feed-forward in this model; train without intervention_components to have EasyEdit's "
            "layer_<l>.pt"
        )
    return (
        f"the vector of {artifact.site} is not a vector at the block's output; train without "
        "intervention_components to have EasyEdit's layer_<l>.pt"
    )


def _convert(state: Any, layer: int, concept_id: int, where: str) -> SteeringArtifact:
    origin = {"easyedit": where, "concept_id": concept_id}
    if isinstance(state, Tensor) and state.ndim == 1:
        return SteeringArtifact(_delta("vector", {"db": state}, where), Site(layer, "residual"), origin=origin)
    if isinstance(state, Mapping) and {"lora_A", "lora_B"} <= set(state):
        delta = _delta("lora", {"A": state["lora_A"].T, "B": state["lora_B"].T}, where)
    elif isinstance(state, Mapping) and {"weight", "bias"} <= set(state):
        delta = _delta("local_weight", {"dW": state["weight"].T, "db": state["bias"]}, where)
    else:
        raise ArtifactError(f"{where} holds {_kind(state)} for a concept, which is none of EasyEdit's vector, lora "
                            "and local_weight results; give what its training wrote")  # fmt: skip
    component = state.get("intervention_components", "mlp_mid")
    if component not in COMPONENT_OF:
        raise ArtifactError(
            f"{where} was trained with intervention_components {component!r}, which reads one place and writes "
            "another and so changes no linear layer; train it with 'mlp_mid'"
        )
    return SteeringArtifact(delta, Site(layer, COMPONENT_OF[component]), origin=origin)


def _delta(form: str, tensors: dict[str, Tensor], where: str) -> LinearDelta:
    try:
        delta = from_tensors(form, {name: tensor.detach().float() for name, tensor in tensors.items()})
    except (ConfigError, AttributeError) as error:
        raise ArtifactError(f"{where} is broken ({error}); write it again") from None
    return delta.requires_grad_(False)


def _kind(state: Any) -> str:
    if isinstance(state, Tensor):
        return f"a tensor of shape {tuple(state.shape)}"
    if isinstance(state, Mapping):
        return f"a dictionary of {', '.join(map(str, state)) or 'nothing'}"
    return f"a {type(state).__name__}"


def _no_concept(concept_id: int, known: Any, where: str) -> str:
    ids = sorted(known)
    shown = ", ".join(map(str, ids)) if len(ids) < 12 else f"{ids[0]} to {ids[-1]}"
    return f"concept_id {concept_id} is not in {where}, which holds {shown}; set concept_id to one of them"


def _check_single(concept_id: int, trained: Any, where: str) -> None:
    if concept_id not in (0, trained):
        raise ArtifactError(f"concept_id {concept_id} is not in {where}, which holds one concept; set concept_id: 0")
