"""Writing files whole or not at all, and reading safetensors files without trusting them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ArtifactError

_HEADER_KEY = "easyedit_split"
_LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """`write(temporary)` creates the content beside `path`; it then replaces `path` in one step, synced to disk.

    Raises:
        ArtifactError: no space, no permission, or a folder in the way; what was there before is kept.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise ArtifactError(f"{path} could not be written ({reason}): free space or choose another folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically; what is no character (a lone surrogate) is written out, as JSON does."""
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_tensors(path: str | Path, tensors: dict[str, Any], header: dict[str, Any]) -> Path:
    """Write tensors, a JSON header and a checksum of both as a safetensors file, atomically."""
    # one metadata key: safetensors writes several in no fixed order, and equal content should be equal bytes
    return write_safetensors(path, tensors, {_HEADER_KEY: sealed(header, tensors)})


def sealed(header: dict[str, Any], tensors: dict[str, Any]) -> str:
    """The header as JSON, with a checksum of itself and of `tensors`."""
    digest = checksum(json.dumps(header, sort_keys=True, ensure_ascii=False), tensors)
    return json.dumps({"header": header, "sha256": digest}, sort_keys=True, ensure_ascii=False)


def write_safetensors(path: str | Path, tensors: dict[str, Any], metadata: dict[str, str]) -> Path:
    """Write a safetensors file, atomically."""
    from safetensors.torch import save

    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    return write_bytes(path, data)


def read_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and header of a file written by `write_tensors`.

    Raises:
        ArtifactError: missing, truncated, not a safetensors file, without our header, changed since it was written, or
            holding numbers that are not finite.
    """
    tensors, metadata = read_safetensors(path)
    try:
        text = metadata[_HEADER_KEY]
        header = json.loads(text)["header"]
        if text != sealed(header, tensors):
            raise ValueError("its content is not what was written: the checksum differs")
    except KeyError:
        raise ArtifactError(f"{path} has no header of this package: it was not written by it") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is broken ({error}): write it again") from None
    if not isinstance(header, dict):
        raise ArtifactError(f"{path} has a header that is no object: write it again")
    return tensors, header


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a file written by `write_tensors`, without its tensors, without torch, and unchecked.

    Raises:
        ArtifactError: missing, broken, or without our header.
    """
    try:
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(Path(path).stat().st_size, _LONGEST_HEADER):
                raise ValueError("it is no safetensors file")
            header = json.loads(json.loads(file.read(length))["__metadata__"][_HEADER_KEY])["header"]
            if not isinstance(header, dict):
                raise ValueError("its header is no object")
            return header
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is broken ({error}): write it again") from None


def checksum(text: str, tensors: dict[str, Any]) -> str:
    """SHA-256 of a text and of tensors: names, kinds, shapes and bytes."""
    import torch

    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)} ".encode("utf-8", "surrogatepass"))
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_safetensors(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of any safetensors file. Takes no more memory than the file is long.

    Raises:
        ArtifactError: missing, truncated, not a safetensors file, or holding numbers that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist: check the path")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError, OverflowError, RuntimeError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise ArtifactError(f"{path} is broken ({reason}): write it again") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{path}: tensor {name!r} holds numbers that are not finite: train it again")
    return tensors, metadata


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a renamed file outlive a power cut."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows, where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
