"""Vectors and adapters that other programs made, read as changes of ours; nothing is unpickled that could run.

| file | what is read |
| --- | --- |
| `.gguf` | a control vector (repeng, llama.cpp): a direction for each layer |
| `.pt`, `.pth`, `.bin` | a tensor, a dictionary of tensors, EasyEdit's results, a steering-vectors object |
| `.npy`, `.safetensors` | vectors |
| a folder, or `adapter_model.safetensors` | a PEFT LoRA adapter |

Where a file holds several changes, a layer, or the name of one of them, says which. Without that they are one change
with one strength, where the file says the layer of each.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .changes.artifact import SteeringArtifact
from .changes.forms import from_tensors
from .easyedit.artifacts import from_state
from .errors import ArtifactError, ConfigError
from .models.identity import identify_model
from .models.sites import Site
from .storage.files import read_header, read_safetensors

TORCH = (".pt", ".pth", ".bin")
PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
# layer_type of steering-vectors -> component; the norms it also knows are no linear map
_COMPONENTS = {"decoder_block": "residual", "mlp": "mlp.down_proj", "self_attn": "self_attn.o_proj"}
_LOREFT = (
    "is a LoReFT of pyreft, h + R^T (W h + b - R h): it multiplies the residual stream itself by a matrix, at chosen "
    "positions of the prompt, and no linear map of the model has that as its change; train form 'lora' instead"
)


class _SteeringVector:
    """What is left of `steering_vectors.SteeringVector` in a file: its fields. Its own code is never run."""

    layer_activations: dict[int, Tensor]
    layer_type: str


@dataclass(frozen=True)
class _Held:
    """One change in a file: its `name` there, and its site as far as the file says."""

    name: str
    artifact: SteeringArtifact
    has_layer: bool
    has_component: bool


def parse_site(text: str) -> tuple[int, str | None]:
    """`14` or `14:mlp.down_proj` as layer and component.

    Raises:
        ConfigError: neither of them.
    """
    layer, _, component = text.partition(":")
    if not (layer.isascii() and layer.isdigit() and len(layer) < 10) or text.endswith(":"):
        raise ConfigError(f"site {text!r} is no place: write LAYER or LAYER:COMPONENT, as 14 or 14:mlp.down_proj")
    return int(layer), component or None


def read_change(
    path: str | Path, site: str | None = None, pick: str | None = None, model: Any = None
) -> SteeringArtifact:
    """The change in a file of another program, ready to be saved, swept and attached; m = 1 is the change as it stands.

    A file with a direction for each of several layers is one change of several layers.

    Args:
        site: see `parse_site`. Needed where the file does not say the layer; the component is `residual` unless the
            file, or this, says another. Where the file holds several layers, the one to be taken.
        pick: which one, where the file holds several: a tensor's name, a row's number, a concept's id.
        model: the model it is for. Its width is then checked, and the change knows it again.

    Raises:
        ArtifactError: missing, broken, pickled, or no change of an affine map.
        ConfigError: several changes and none chosen, or no layer.
        SiteError: the model has no such site, or the change is of another width.
    """
    path = Path(path)
    layer, component = parse_site(site) if site else (None, None)
    chosen = _chosen(path, _held(path), layer, component, pick)
    artifact = SteeringArtifact.joined([_placed(path, one, layer, component) for one in chosen])
    imported = {"file": path.name, "held": _names(chosen), "sha256": _digest(path)}
    artifact = replace(artifact, origin={**artifact.origin, "imported": imported})
    if model is not None:
        artifact.resolve_all(model)
        artifact = replace(artifact, model=identify_model(model, *(place.layer for place in artifact.site.sites)))
    return artifact


def _placed(path: Path, held: _Held, layer: int | None, component: str | None) -> SteeringArtifact:
    """A change of a file where the file, or else the user, says that it goes."""
    (place,) = held.artifact.site.sites
    if layer is None and not held.has_layer:
        raise ConfigError(f"{path} does not say which layer it is for: give --site LAYER or LAYER:COMPONENT")
    if component is not None and held.has_component and component != place.component:
        raise ConfigError(f"{path} was made for {place.component}, not for {component}: leave the component out")
    return replace(
        held.artifact,
        site=Site(place.layer if layer is None or held.has_layer else layer, component or place.component),
    )


def _held(path: Path) -> list[_Held]:
    suffix = path.suffix.lower()
    if path.is_dir() or path.name.startswith("adapter_model."):
        return _of_peft(path if path.is_dir() else path.parent)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist: check the path")
    if suffix in PICKLES:
        raise ArtifactError(f"{path} is a pickle, which can run code when it is read: save the tensor as .safetensors")
    if suffix == ".gguf":
        from .formats.gguf import from_gguf

        return [_Held(f"direction.{a.site.layer}", a, True, True) for a in from_gguf(path)]
    if suffix in TORCH:
        return _of_torch(path)
    if suffix == ".npy":
        return _of_tensor("", _of_numpy(path), path)
    if suffix == ".safetensors":
        return _of_safetensors(path)
    known = ", ".join((".gguf", *TORCH, ".npy", ".safetensors"))
    raise ArtifactError(f"{path} is of no kind that is read ({known}, or the folder of a PEFT adapter)")


def _chosen(path: Path, held: list[_Held], layer: int | None, component: str | None, pick: str | None) -> list[_Held]:
    """The change that is meant, or all of them where each has its own site."""
    found = [h for h in held if pick in (None, h.name)]
    if pick is not None and not found:
        raise ConfigError(f"{path} holds no {pick!r} but {_names(held)}: pick one of them")
    if layer is not None:
        at_layer = [h for h in found if not h.has_layer or h.artifact.site.layer == layer]
        if not at_layer:
            layers = ", ".join(sorted({str(h.artifact.site.layer) for h in found}))
            raise ConfigError(f"{path} holds nothing for layer {layer} but for {layers}: give one of these as --site")
        found = at_layer
    if component is not None and len(found) > 1:
        found = [h for h in found if not h.has_component or h.artifact.site.component == component] or found
    apart = all(h.has_layer for h in found) and len({h.artifact.site for h in found}) == len(found)
    apart = apart and len({h.artifact.form for h in found}) == 1
    if len(found) > 1 and (layer is not None or not apart):
        how = "--site LAYER" if len({h.artifact.site.layer for h in found}) == len(found) else "--pick NAME"
        raise ConfigError(
            f"{path} holds {len(found)} changes ({_names(found)}), and one site takes one: choose it with {how}"
        )
    return found


def _names(held: list[_Held]) -> str:
    names = [h.name for h in held]
    return ", ".join(names) if len(names) < 12 else f"{names[0]} to {names[-1]}"


def _of_peft(folder: Path) -> list[_Held]:
    if not (folder / "adapter_config.json").is_file():
        raise ArtifactError(f"{folder} is no PEFT adapter (it has no adapter_config.json): give a file, or its folder")
    found = SteeringArtifact.from_peft(folder)
    several = found if isinstance(found, list) else found.parts
    return [_Held(str(a.site), a, True, True) for a in several]


def _of_torch(path: Path) -> list[_Held]:
    allowed: list[Any] = [(_SteeringVector, "steering_vectors.steering_vector.SteeringVector")]
    try:
        with torch.serialization.safe_globals(allowed):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).split("\n") if "GLOBAL" in line or "global" in line), str(error))
        raise ArtifactError(
            f"{path} holds more than tensors, and reading that can run code ({reason.strip()[:120]}): "
            "save the tensor alone"
        ) from None
    except Exception as error:  # a damaged file makes torch.load raise almost anything
        reason = str(error).strip().split("\n")[0]
        raise ArtifactError(f"{path} cannot be read as tensors ({reason}): write it again") from None
    if isinstance(state, _SteeringVector):
        return _of_steering_vectors(state, path)
    if isinstance(state, Tensor):
        return _of_tensor("", state, path)
    if not isinstance(state, Mapping) or not state:
        raise ArtifactError(f"{path} holds a {type(state).__name__}, not a vector: save the tensor alone")
    if "rotate_layer" in state:
        raise ArtifactError(f"{path} {_LOREFT}")
    if {"lora_A", "lora_B"} <= set(state) or {"weight", "bias"} <= set(state):
        return [_easyedit("", state, path)]
    return [held for name, value in state.items() for held in _of_entry(str(name), value, path)]


def _of_entry(name: str, value: Any, path: Path) -> list[_Held]:
    if isinstance(value, Mapping):
        return [_easyedit(name, value, path)]
    if not isinstance(value, Tensor):
        raise ArtifactError(
            f"{path} holds a {type(value).__name__} under {name!r}, not a vector: save the tensors alone"
        )
    return _of_tensor(name, value, path)


def _easyedit(name: str, state: Any, path: Path) -> _Held:
    """EasyEdit's dictionary of one change; its layer is the file's name."""
    layer = _layer_of(path.stem)
    artifact = from_state(state, layer or 0, 0, str(path))
    for key, tensor in artifact.delta.tensors().items():
        if not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{path}: {key} holds numbers that are not finite: write it again")
    return _Held(name or path.stem, artifact, layer is not None, True)


def _of_steering_vectors(state: Any, path: Path) -> list[_Held]:
    kind, vectors = getattr(state, "layer_type", "decoder_block"), getattr(state, "layer_activations", None)
    if not isinstance(vectors, Mapping) or not vectors:
        raise ArtifactError(f"{path} is a steering vector without layers: train it again")
    if kind not in _COMPONENTS:
        raise ArtifactError(
            f"{path} is added behind {kind!r}, which is no linear map: train it with layer_type 'decoder_block'"
        )
    found = []
    for layer, value in vectors.items():
        if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
            raise ArtifactError(f"{path} names a layer {layer!r}: save it with layers from 0")
        artifact = _vector(value, f"{path}, layer {layer}")
        found.append(_Held(f"layer {layer}", replace(artifact, site=Site(layer, _COMPONENTS[kind])), True, True))
    return found


def _of_numpy(path: Path) -> Tensor:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
        return torch.from_numpy(np.ascontiguousarray(array))
    except (ValueError, OSError, EOFError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ArtifactError(f"{path} is no array that can be read ({reason}): save the vector again") from None


def _of_safetensors(path: Path) -> list[_Held]:
    tensors, metadata = read_safetensors(path)
    if "easyedit_split" in metadata:
        read_header(path)
        raise ArtifactError(f"{path} is an artifact of this package already: use its folder as it is")
    if not tensors:
        raise ArtifactError(f"{path} holds no tensors: save the vector again")
    return [held for name, value in sorted(tensors.items()) for held in _of_tensor(name, value, path)]


def _of_tensor(name: str, value: Tensor, path: Path) -> list[_Held]:
    """A vector; or, of a matrix, one for each row."""
    layer = _layer_of(name)
    layer = _layer_of(path.stem) if layer is None else layer
    where = f"{path}, {name}" if name else str(path)
    if value.ndim > 1 and value.numel() > value.shape[-1]:
        rows = value.reshape(-1, value.shape[-1])
        named = [(f"{name}[{i}]" if name else str(i), row, f"{where}, row {i}") for i, row in enumerate(rows)]
    else:
        named = [(name or path.stem, value.flatten() if value.ndim else value, where)]
    site = Site(layer or 0, "residual")
    return [_Held(one, replace(_vector(v, w), site=site), layer is not None, False) for one, v, w in named]


def _vector(value: Any, where: str) -> SteeringArtifact:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__
        raise ArtifactError(f"{where} is of kind {kind}: a vector is of floating-point numbers")
    flat = value.detach().float().flatten()
    if not value.ndim or not len(flat) or len(flat) != value.shape[-1]:
        raise ArtifactError(
            f"{where} has shape {tuple(value.shape)}: a vector has one dimension, and one number or more"
        )
    if not bool(flat.isfinite().all()):
        raise ArtifactError(f"{where} holds numbers that are not finite in float32: make it again")
    return SteeringArtifact(from_tensors("vector", {"db": flat}).requires_grad_(False), Site(0, "residual"))


def _layer_of(name: str) -> int | None:
    """The layer in a name such as `layer_14` or `direction.14`."""
    head, _, number = name.replace(".", "_").rpartition("_")
    known = head in ("layer", "direction", "layers") and number.isascii() and number.isdigit() and len(number) < 10
    return int(number) if known else None


def _digest(path: Path) -> str:
    file = path / "adapter_model.safetensors" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest()
