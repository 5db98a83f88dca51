"""PEFT LoRA adapters, written and read: the form in which vLLM, llama.cpp and others serve a change.

An adapter's change is `(lora_alpha / r) B A`; a LoRA delta is `dW = B A` (paper, Table 1), so `lora_alpha = m r`
makes PEFT's scale equal m. The sign of a negative m goes into B, because some readers take no negative alpha.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..changes.change import Change
from ..changes.forms import LinearDelta, from_tensors
from ..errors import ArtifactError, ConfigError
from ..models.sites import Site
from ..storage.files import read_safetensors, write_safetensors, write_text
from .adapter_factors import check_adapter, factors_of
from .adapter_names import artifact_site, find_target

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_HEADER = "easyedit_split"


@dataclass(frozen=True)
class PeftExport:
    """What was written: `rank`, and how far the adapter's `dW` is from the change's.

    `relative_error` is `|dW - B A| / |dW|` in the Frobenius norm, 0 for a LoRA; `energy` the share of `|dW|^2` kept.
    """

    folder: Path
    rank: int
    relative_error: float
    energy: float


def to_peft(
    artifact: Change,
    folder: str | Path,
    m: float = 1.0,
    *,
    model: Any = None,
    rank: int | None = None,
    energy: float | None = None,
    bias: str = "refuse",
) -> PeftExport:
    """Write `artifact` at strength `m` as a PEFT LoRA adapter.

    LoRA as it is; a local weight's `dW` by singular value decomposition.

    Args:
        model: the base model; needed for vectors, for sites in fused modules and for architectures that
            `adapter_names` does not list.
        rank, energy: for a local weight, one of the two: the rank, or the share of `|dW|^2` to keep (0 to 1).
        bias: what to do with `db`: `"refuse"`; `"drop"` it; or `"lora_bias"`, which PEFT reads and vLLM and llama.cpp
            do not.

    Raises:
        NotMergeableError: a `db` and `bias="refuse"`, a change that steers only some positions, or no linear map at
            the site.
        ConfigError: m is 0 or not finite, or `rank`, `energy` or `bias` is wrong or missing.
        ArtifactError: the folder cannot be written.
    """
    check_adapter(artifact, m, bias)
    sign = math.copysign(1.0, m)
    tensors: dict[str, Tensor] = {}
    targets = [find_target(part, model) for part in artifact.parts]
    ranks: dict[str, int] = {}
    found = factors_of(artifact, [target.d_in for target in targets], rank, energy)
    for part, target, factors in zip(artifact.parts, targets, found.parts, strict=True):
        if target.module in ranks:
            raise ConfigError(f"two parts of the change lie in {target.module}, and an adapter has one: attach it")
        ranks[target.module] = factors.rank
        key = f"{_PREFIX}{target.module}"
        tensors |= {f"{key}.lora_A.weight": factors.A, f"{key}.lora_B.weight": sign * target.all_rows(factors.B)}
        if bias == "lora_bias":
            tensors[f"{key}.lora_B.bias"] = sign * target.all_rows(_bias(part.delta))
    folder = Path(folder)
    place = {"site": asdict(artifact.site)} if isinstance(artifact.site, Site) else asdict(artifact.site)
    header = {**place, "model": artifact.model, "origin": artifact.origin}
    write_safetensors(folder / WEIGHTS, tensors, {"format": "pt", _HEADER: json.dumps(header, sort_keys=True)})
    config = _adapter_config(artifact, ranks, abs(m), target.fan_in_fan_out, bias == "lora_bias")
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    return PeftExport(folder, found.rank, found.relative_error, found.energy)


def read_adapter(folder: str | Path) -> list[dict[str, Any]]:
    """Read a PEFT LoRA adapter: for each module it touches delta, site, model, origin, and whether `together` they are
    one change of ours.

    Its scale is put into B. An adapter with `lora_bias` becomes a local weight, or a vector where its matrices are
    zero. Weights in pickled files (`adapter_model.bin`) are not read.

    Raises:
        ArtifactError: missing or broken files, or a kind of adapter that is no `W + s B A` (DoRA, trained biases,
            saved modules, embeddings, modules outside the decoder blocks).
    """
    folder = Path(folder)
    config = _config(folder / CONFIG)
    tensors, metadata = read_safetensors(folder / WEIGHTS)
    kept = _header(metadata, folder)
    found: list[dict[str, Any]] = []
    for name, matrices in _modules(tensors, folder).items():
        site = artifact_site(name, folder)
        own = asdict(site) in kept.get("sites", ())
        model = kept["model"] if own else {"name": str(config.get("base_model_name_or_path"))}
        origin = kept["origin"] if own else {"peft": {"module": name}}
        delta = _delta(matrices, _scale(config, name, matrices), folder).requires_grad_(False)
        parts = {"delta": delta, "site": site, "model": dict(model), "origin": dict(origin)}
        found.append({**parts, "together": own and len(kept["sites"]) > 1})
    return sorted(found, key=lambda parts: (parts["site"].layer, parts["site"].component))


def _bias(delta: LinearDelta) -> Tensor:
    db = delta.bias_term()
    return torch.zeros(delta.d_out) if db is None else db.detach().cpu()


def _adapter_config(
    artifact: Change, ranks: dict[str, int], m: float, fan_in_fan_out: bool, with_bias: bool
) -> dict[str, Any]:
    """The keys of PEFT's LoraConfig that matter; `target_modules` holds the modules' full paths. Of several ranks, the
    first one's is the adapter's, and the others have a pattern."""
    rank = next(iter(ranks.values()))
    others = {re.escape(module): r for module, r in ranks.items() if r != rank}
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "bias": "none",
        "base_model_name_or_path": artifact.model.get("name"), "target_modules": list(ranks),
        "r": rank, "lora_alpha": m * rank, "lora_dropout": 0.0, "lora_bias": with_bias,
        "fan_in_fan_out": fan_in_fan_out, "use_rslora": False, "use_dora": False, "modules_to_save": None,
        "rank_pattern": others, "alpha_pattern": {module: m * r for module, r in others.items()},
        "init_lora_weights": True,
    }  # fmt: skip


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}): give the folder of a PEFT adapter") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON ({error}): write the adapter again") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ArtifactError(f"{path} describes an adapter of kind {kind!r}: only LORA is W + s B A")
    for key, why in (("use_dora", "rescales the weights"), ("modules_to_save", "replaces whole modules")):
        if config.get(key):
            raise ArtifactError(f"{path} has {key}, which {why} and is no W + s B A: merge that adapter with PEFT")
    if config.get("bias", "none") != "none":
        raise ArtifactError(f"{path} has bias={config['bias']!r}, biases outside B A: merge that adapter with PEFT")
    return config


def _header(metadata: dict[str, str], folder: Path) -> dict[str, Any]:
    """What `to_peft` kept of the artifact; empty for adapters of others."""
    try:
        header = json.loads(metadata.get(_HEADER, "{}"))
        if not header:
            return {}
        sites = header["sites"] if "sites" in header else [header["site"]]
        return {"sites": [dict(s) for s in sites], "model": dict(header["model"]), "origin": dict(header["origin"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{folder / WEIGHTS} has a broken header ({error}): write the adapter again") from None


def _modules(tensors: dict[str, Tensor], folder: Path) -> dict[str, dict[str, Tensor]]:
    """Module path -> its tensors by the names `A`, `B` and `bias`."""
    endings = {".lora_A.weight": "A", ".lora_B.weight": "B", ".lora_B.bias": "bias"}
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        ending = next((e for e in endings if key.endswith(e)), None)
        if ending is None:
            raise ArtifactError(f"{folder / WEIGHTS} holds {key!r}, which is no part of a LoRA on a linear module")
        name = key.removesuffix(ending).removeprefix(_PREFIX)
        modules.setdefault(name, {})[endings[ending]] = tensor.float()
    for name, parts in modules.items():
        if not {"A", "B"} <= set(parts) or parts["A"].ndim != 2 or parts["B"].ndim != 2:
            raise ArtifactError(f"{folder / WEIGHTS} lacks a matrix of {name}: write the adapter again")
    if not modules:
        raise ArtifactError(f"{folder / WEIGHTS} holds no tensors: write the adapter again")
    return modules


def _scale(config: dict[str, Any], name: str, parts: dict[str, Tensor]) -> float:
    """PEFT's scale of one module: `alpha / r`, or `alpha / sqrt(r)` with `use_rslora`."""
    rank = len(parts["A"])
    try:
        alpha = float(_of_module(config.get("alpha_pattern"), name, config.get("lora_alpha", 8)))
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise ArtifactError(f"the adapter's scale for {name} cannot be computed ({error}): check {CONFIG}") from None
    if not math.isfinite(scale):
        raise ArtifactError(f"the adapter's scale for {name} is {scale}: check lora_alpha in {CONFIG}")
    return scale


def _of_module(pattern: dict[str, Any] | None, name: str, otherwise: Any) -> Any:
    """A value that a PEFT pattern (module suffix -> value) gives for a module."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return otherwise


def _delta(parts: dict[str, Tensor], scale: float, folder: Path) -> LinearDelta:
    a, b = parts["A"], scale * parts["B"]
    try:
        if a.shape[0] != b.shape[1]:
            raise ConfigError(f"lora_A is {tuple(a.shape)} and lora_B {tuple(b.shape)}")
        if "bias" not in parts:
            return from_tensors("lora", {"A": a, "B": b})
        db = scale * parts["bias"]
        if not bool(a.any() and b.any()):
            return from_tensors("vector", {"db": db})
        return from_tensors("local_weight", {"dW": b @ a, "db": db})
    except ConfigError as error:
        raise ArtifactError(f"{folder / WEIGHTS} is broken ({error}): write the adapter again") from None
