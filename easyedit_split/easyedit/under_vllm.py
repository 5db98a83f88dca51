"""A vector inside EasyEdit's wrapper of vLLM: added at a block's output, by EasyEdit's own hooks on vLLM's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..changes.artifact import SteeringArtifact
from ..errors import ArtifactError, HostError


def runs_under_vllm(wrapper: Any) -> bool:
    """Whether EasyEdit's wrapper holds a vLLM engine instead of a model."""
    return getattr(wrapper, "VLLM_model", None) is not None


def apply_under_vllm(name: str, wrapper: Any, plan: Sequence[tuple[float, SteeringArtifact]]) -> None:
    """Add each vector times its multiplier at its block's output; what `name` had added at those layers is replaced.

    vLLM's prefix cache is emptied, as it would hold prefixes that were computed without the vectors.

    Raises:
        HostError: a change that is not a vector at a block's output, or a checkout of EasyEdit that cannot do it.
        ArtifactError: a vector of another model.
    """
    for _, artifact in plan:
        _check_kind(artifact)
        _check_model(artifact, wrapper.VLLM_model.llm_engine.vllm_config.model_config.hf_text_config)
    try:
        from steer.vector_appliers.vllm_activation_utils import (  # type: ignore[import-not-found]
            reset_vllm_activation_layers,
            set_vllm_add_activations,
        )
    except ImportError:
        raise HostError(
            "this checkout of EasyEdit cannot steer models under vLLM: take a newer one, or set vllm_enable: false"
        ) from None
    reset_vllm_activation_layers(wrapper, name, [artifact.site.layer for _, artifact in plan])
    vectors = {a.site.layer: m * a.delta.tensors()["db"] for m, a in plan}
    set_vllm_add_activations(wrapper, name, vectors)
    wrapper.VLLM_model.reset_prefix_cache()


def _check_kind(artifact: SteeringArtifact) -> None:
    if not artifact.acts_at_block_output or artifact.positions.rule != "all":
        raise HostError(
            f"under vLLM, EasyEdit adds a vector to a block's output at every token, and form {artifact.form!r} at "
            f"{artifact.site} with positions {artifact.positions.rule!r} is not one: set vllm_enable: false, or serve "
            "it with easyedit-split serve"
        )


def _check_model(artifact: SteeringArtifact, config: Any) -> None:
    here = {"architecture": config.model_type, "layers": config.num_hidden_layers, "width": config.hidden_size}
    for key, value in here.items():
        if artifact.model.get(key, value) != value:
            raise ArtifactError(
                f"the vector was made for a model whose {key} is {artifact.model[key]}, and of this one it is {value}: "
                "use it with the model it was made for"
            )
