"""Control vectors in GGUF, the file that llama.cpp's `--control-vector` reads.

The layout is llama.cpp's: architecture `controlvector`, one float32 tensor `direction.<l>` a layer. llama.cpp adds
`direction.<l>` to the output of block l (from 0), and never to that of block 0. So layer numbers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..changes.forms import from_tensors
from ..errors import ArtifactError, ConfigError, NotMergeableError
from ..storage.files import write_atomically

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact

_ARCHITECTURE = "controlvector"


def to_gguf(artifacts: SteeringArtifact | Sequence[SteeringArtifact], path: str | Path, m: float = 1.0) -> Path:
    """Write vectors, one a layer, as a control vector; llama.cpp's own scale then multiplies `m`. They are one change
    of several layers, or several changes.

    Raises:
        NotMergeableError: a form or site that is no addition to a block's output, layer 0, or positions other than
            all of them.
        ConfigError: two vectors of one layer, of different models, or an `m` that is not finite; or `gguf` is missing.
    """
    given: Sequence[SteeringArtifact] = artifacts if isinstance(artifacts, Sequence) else [artifacts]
    several = [part for artifact in given for part in artifact.parts]
    for artifact in several:
        _check(artifact)
    gguf = gguf_package()
    layers = [a.site.layer for a in several]
    hints = {str(a.model.get("architecture", "unknown")) for a in several}
    if not several or len(set(layers)) < len(layers) or len(hints) > 1:
        raise ConfigError(f"layers {layers} of models {sorted(hints)}: give one vector a layer, of one model")
    vectors = {a.site.layer: (m * a.delta.tensors()["db"]).float().cpu() for a in several}
    if not all(bool(v.isfinite().all()) for v in vectors.values()):
        raise ConfigError(f"m = {m} gives vectors that are not finite in float32: use a smaller m")

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(temporary, _ARCHITECTURE)
        try:
            writer.add_string(f"{_ARCHITECTURE}.model_hint", hints.copy().pop())
            writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vectors))
            for layer, vector in sorted(vectors.items()):
                writer.add_tensor(f"direction.{layer}", vector.numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    return write_atomically(path, write)


def from_gguf(path: str | Path) -> list[SteeringArtifact]:
    """Read a control vector: one vector artifact at `residual` for each layer, in the order of layers.

    Raises:
        ArtifactError: missing, broken, or no control vector.
    """
    from ..changes.artifact import SteeringArtifact
    from ..models.sites import Site

    gguf = gguf_package()
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist: check the path")
    try:
        reader = gguf.GGUFReader(path)
        architecture, hint = (_text(reader, key) for key in ("general.architecture", f"{_ARCHITECTURE}.model_hint"))
        if architecture != _ARCHITECTURE:
            raise ValueError(f"its architecture is {architecture!r}, not {_ARCHITECTURE!r}")
        found = [
            SteeringArtifact(_vector(tensor, gguf), Site(_layer(tensor.name), "residual"), origin={"gguf": hint})
            for tensor in reader.tensors
        ]
    except ArtifactError:
        raise
    except Exception as error:  # the reader parses without checks: what a broken file raises is not a closed list
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ArtifactError(f"{path} is not a control vector that can be read ({reason}): write it again") from None
    if not found:
        raise ArtifactError(f"{path} holds no directions: write it again")
    return sorted(found, key=lambda a: a.site.layer)


def _check(artifact: SteeringArtifact) -> None:
    """Refuse what llama.cpp would not add as this change of one site does."""
    if not artifact.acts_at_block_output:
        raise NotMergeableError(
            f"a control vector is added to a block's output, and form {artifact.form!r} at {artifact.site} is not: "
            "train form 'vector' at 'residual', or export to peft or hf"
        )
    if artifact.site.layer == 0:
        raise NotMergeableError("llama.cpp adds no control vector at layer 0: train at layer 1 or above")
    if artifact.positions.rule != "all":
        raise NotMergeableError(
            f"the vector steers positions {artifact.positions.rule!r} only, and llama.cpp steers every token: "
            "train with positions='all'"
        )


def _text(reader: Any, key: str) -> str:
    field = reader.fields.get(key)
    return "" if field is None else bytes(field.parts[field.data[0]]).decode("utf-8")


def _layer(name: str) -> int:
    head, _, number = name.partition(".")
    if head != "direction" or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise ValueError(f"it holds a tensor {name!r}")
    return int(number)


def _vector(tensor: Any, gguf: Any) -> Any:
    if tensor.tensor_type != gguf.GGMLQuantizationType.F32 or tensor.data.ndim != 1:
        raise ValueError(f"{tensor.name} is no float32 vector")
    values = torch.from_numpy(tensor.data.copy())
    if not bool(values.isfinite().all()):
        raise ValueError(f"{tensor.name} holds numbers that are not finite")
    return from_tensors("vector", {"db": values}).requires_grad_(False)


def gguf_package() -> Any:
    """The package `gguf`, or `ConfigError` where it is missing."""
    try:
        import gguf
    except ImportError:
        raise ConfigError("the package 'gguf' is missing: pip install 'easyedit-split[gguf]'") from None
    return gguf
