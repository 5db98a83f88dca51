"""Whether an engine of vLLM can be steered, and by these artifacts."""

from __future__ import annotations

from typing import Any

from ..errors import ArtifactError, ConfigError
from .catalogue import Served


def check_model(served: Served, config: Any) -> None:
    """Raise `ArtifactError` unless the artifact was made for a model of this configuration (transformers')."""
    text = config.get_text_config()
    here = {"architecture": text.model_type, "layers": text.num_hidden_layers, "width": text.hidden_size}
    for key, value in here.items():
        if served.model.get(key, value) != value:
            raise ArtifactError(
                f"artifact {served.name!r} was made for a model whose {key} is {served.model[key]}, and of this one it "
                f"is {value}: serve it with the model it was made for"
            )


def check_engine(config: Any) -> None:
    """Raise `ConfigError` where the engine would read a steered prefix as an unsteered one, or see other tokens than
    those that were filled."""
    parallel = config.parallel_config
    unsupported = {
        "speculative decoding": config.speculative_config is not None,
        "pooling models": config.model_config.runner_type != "generate",
        "KV transfer": config.kv_transfer_config is not None,
        "dual batch overlap": parallel.use_ubatching,
        "fast prefill": config.cache_config.kv_sharing_fast_prefill,
        "context parallelism": parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1,
    }
    for name, is_on in unsupported.items():
        if is_on:
            raise ConfigError(f"steering does not work with {name} in vLLM: switch it off, or serve without artifacts")
