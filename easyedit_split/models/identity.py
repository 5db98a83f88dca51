"""Which model this is: its name and shape, and fingerprints of its structure and of its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .architectures import STRUCTURE
from .parts import decoder_layers, has_norm_after_mlp, hidden_size, unwrap

NUMBERS_A_TENSOR = 64


def describe_model(model: Any, name: str | None = None) -> dict[str, Any]:
    """What an artifact remembers of its base model: name, architecture, depth, width, fingerprint of its structure."""
    inner = unwrap(model)
    config = inner.config
    structure = {key: _value(config, key) for key in STRUCTURE}
    blocks = decoder_layers(model)
    return {
        "name": name or getattr(config, "_name_or_path", "") or type(inner).__name__,
        "architecture": config.model_type,
        "layers": len(blocks),
        "width": hidden_size(model),
        "norm_after_mlp": has_norm_after_mlp(blocks[0]),
        "fingerprint": hashlib.sha256(json.dumps(structure, sort_keys=True).encode()).hexdigest()[:16],
    }


def _value(config: Any, key: str) -> Any:
    """A key of a config; None where there is none, or one a layer (Gemma-4)."""
    try:
        return getattr(config, key, None)
    except RuntimeError:  # transformers' word for "one a layer"
        return None


def model_fingerprint(model: Any) -> str:
    """Structure and weights of a model in 16 letters: its description, and some numbers of every parameter.

    Cheap on purpose: it tells models apart, it does not prove that two are equal.
    """
    digest = hashlib.sha256(describe_model(model)["fingerprint"].encode())
    for path, module in model.named_modules():
        with _loaded(module):
            for name, parameter in module.named_parameters(path, recurse=False):
                flat = parameter.detach().flatten()
                step = max(1, flat.numel() // NUMBERS_A_TENSOR)
                digest.update(name.encode())
                digest.update(flat[::step][:NUMBERS_A_TENSOR].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _loaded(module: Any) -> Iterator[None]:
    """Inside, the module's own weights are there, if they are offloaded."""
    if not any(p.is_meta for p in module.parameters(recurse=False)):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module, "cpu"):
        yield
