"""A plain Hugging Face checkpoint with the change baked in: `W + m1 dW`, `b + m2 db`; it loads without this package."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..changes.artifact import SteeringArtifact
from ..changes.merge import Merge
from ..errors import ArtifactError, ConfigError, NotMergeableError
from ..models.architectures import BIAS_SWITCHES


def export_checkpoint(
    model: Any,
    tokenizer: Any,
    artifact: SteeringArtifact,
    folder: str | Path,
    m: float | None = None,
    *,
    m1: float | None = None,
    m2: float | None = None,
    max_shard_size: str = "5GB",
) -> Path:
    """Write `model` with `artifact` merged at strength `m` into the new `folder`; `model` is left as it was.

    Weights are in the model's dtype, so that in half precision the sum is rounded once. Sharded safetensors, the
    tokenizer and the generation config go with it. The folder appears whole or not at all.

    `db` needs a bias in the checkpoint. Where the layer has none, but the architecture's config has a switch for it
    (Llama's `mlp_bias`; `attention_bias` of Llama, Qwen3 and Gemma), the switch is turned on, and the other biases it
    brings are written as zeros.

    Raises:
        NotMergeableError: a `db` with no bias to hold it and no switch, nothing left to write, or whatever
            `artifact.merge` refuses.
        ArtifactError: the folder holds something already, or cannot be written.
    """
    from ..models.parts import unwrap

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder} exists already: choose a new folder, or delete it first")
    if unwrap(model) is not model:
        raise NotMergeableError("the model is wrapped by PEFT: call its merge_and_unload() first")
    if any(p.is_meta for p in model.parameters()):
        raise NotMergeableError("some of the model's weights are offloaded: load it without device_map")
    edit = artifact.merge(model, m, m1=m1, m2=m2)
    if not edit.after:
        raise NotMergeableError(
            f"nothing of form {artifact.form!r} is left at this strength: the checkpoint would be the unsteered model"
        )
    try:
        with _with_bias_in_config(model, edit, artifact):
            _save(model, tokenizer, folder, max_shard_size)
    finally:
        edit.undo()
    return folder


def _save(model: Any, tokenizer: Any, folder: Path, max_shard_size: str) -> None:
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        model.save_pretrained(temporary, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(temporary)
        for file in temporary.iterdir():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        temporary.chmod(0o755)
        os.replace(temporary, folder)
        temporary = None
    except OSError as error:
        raise _not_written(folder, error.strerror or str(error)) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise _not_written(folder, str(error)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _not_written(folder: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{folder} could not be written ({reason}): free space or choose another folder")


@contextmanager
def _with_bias_in_config(model: Any, edit: Merge, artifact: SteeringArtifact) -> Iterator[None]:
    """Inside, the model's config says that the bias `edit` added exists, and its siblings are there as zeros."""
    if not edit.added_bias:
        yield
        return
    edited = [one.module for one in edit.edits if one.added_bias]
    paths = [name for name, module in model.named_modules() if any(module is one for one in edited)]
    switch, siblings = _switch_for(model, {f"{path}.bias" for path in paths}, artifact)
    added = []
    try:
        setattr(model.config, switch, True)
        for name in siblings:
            module = model.get_submodule(name.removesuffix(".bias"))
            weight = module.weight
            module.bias = nn.Parameter(weight.new_zeros(module.out_features), requires_grad=False)
            added.append(module)
        yield
    finally:
        setattr(model.config, switch, False)
        for module in added:
            module.bias = None


def _switch_for(model: Any, biases: set[str], artifact: SteeringArtifact) -> tuple[str, list[str]]:
    """The config switch that gives the model the parameters `biases`, and the others it brings.

    The architecture itself is asked: it is built without memory, with the switch on.
    """
    present = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for switch in BIAS_SWITCHES:
        if getattr(model.config, switch, None) is not False:
            continue
        config = copy.deepcopy(model.config)
        setattr(config, switch, True)
        with torch.device("meta"):
            wanted = {name for name, _ in type(model)(config).named_parameters(remove_duplicate=False)}
        if biases <= wanted and present <= wanted and all(n.endswith(".bias") for n in wanted - present):
            return switch, sorted(wanted - present)
    raise NotMergeableError(
        f"{artifact.site} has no bias in a {model.config.model_type} checkpoint, so db would be lost on reloading: "
        "set m2=0 to export dW alone (--without-db), export a PEFT adapter "
        "with bias='lora_bias' (--lora-bias), or attach the artifact"
    )


def check_shard_size(text: str) -> str:
    """A shard size as transformers takes it (`5GB`, `200MB`).

    Raises:
        ConfigError: it is none.
    """
    number = text.rstrip("KMGTkmgtBbi")
    if not number.isdigit() or int(number) == 0 or number == text:
        raise ConfigError(f"shard size {text!r} is not understood: give a number and a unit, such as 5GB")
    return text
