"""Steering inside EasyEdit's model wrapper, for its `BaseVectorApplier`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..changes.artifact import SteeringArtifact
from ..changes.attach import Handle, Strength
from ..errors import ConfigError
from ..models.parts import has_norm_after_mlp
from ..models.sites import ResolvedSite
from ..settings.hyperparameters import Hyperparameters
from .artifacts import at_layer, from_state, read_whole
from .dictionary_token import SteeringToken, block_tokens
from .host import load_wrapper, plain_model, wrapped_blocks
from .hparams import frozen
from .names import trained_folder
from .under_vllm import apply_under_vllm, runs_under_vllm

log = logging.getLogger(__name__)


class GatedHandle(Handle):
    """A handle that steers only while `is_on()`."""

    def __init__(
        self, model: Any, artifact: SteeringArtifact, site: ResolvedSite, m: float, is_on: Callable[[], bool]
    ) -> None:
        super().__init__(model, artifact.delta, site, Strength(m), artifact.positions)
        self._is_on = is_on

    def _acts(self, part: Any) -> bool:
        return self._is_on() and super()._acts(part)


def apply_vectors(hparams: Any, wrapper: Any = None, vectors: Any = None) -> Any:
    """Steer EasyEdit's `wrapper` at `hparams.layers` with one multiplier each; returns the wrapper.

    Without multipliers one change, of one layer or of several that are all named, has the strength that it keeps; or 1
    where it is of one layer and keeps none.

    What this method had attached at those layers before is replaced. Everything is read and checked first, so that
    an error leaves the wrapper as it was.

    Args:
        hparams: an apply shell; the form comes from what was trained.
        wrapper: EasyEdit's; None: EasyEdit loads the model that `hparams` names.
        vectors: what training returned; None: read `hparams.steer_vector_load_dir`.

    Raises:
        ConfigError: layers and multipliers differ in number, or the form is not the one that was trained.
        ArtifactError: nothing to apply there, or it was made for another model.
        HostError: the wrapper runs vLLM, and the change is not a vector at a block's output.
    """
    plan = _plan(hparams, vectors)
    wrapper = load_wrapper(hparams) if wrapper is None else wrapper
    if runs_under_vllm(wrapper):
        apply_under_vllm(hparams.alg_name, wrapper, plan)
        return wrapper
    blocks: list[Any] = list(wrapped_blocks(wrapper))
    with plain_model(wrapper) as model:
        resolved = [artifact.resolve(model) for _, artifact in plan]
        for (multiplier, artifact), site in zip(plan, resolved, strict=True):
            block = blocks[artifact.site.layer]
            _warn_of_norm(artifact, block.block)
            _put(hparams.alg_name, block, model, artifact, site, multiplier)
    return wrapper


def _plan(hparams: Any, vectors: Any) -> list[tuple[float, SteeringArtifact]]:
    """Multiplier and artifact of each layer, all read before anything is attached."""
    settings = frozen(hparams)
    layers, multipliers = settings.layers, settings.multipliers
    if not layers or multipliers and len(layers) != len(multipliers):
        raise ConfigError(_one_a_layer(settings))
    if len(set(layers)) < len(layers):
        raise ConfigError(f"{settings.source}: layers {list(layers)} names a layer twice; name each once")
    changes = [_change(hparams, vectors, layer, settings.concept_id or 0) for layer in layers]
    artifacts = [at_layer(change, layer) for change, layer in zip(changes, layers, strict=True)]
    for artifact in artifacts:
        if hparams.intervention_method not in (None, artifact.form):
            raise ConfigError(
                f"{settings.source}: intervention_method is {hparams.intervention_method!r} but layer "
                f"{artifact.site.layer} was trained as {artifact.form!r}; name that one, or leave the key out"
            )
    strengths = multipliers or [_kept_strength(changes, settings)] * len(layers)
    return list(zip(strengths, artifacts, strict=True))


def _one_a_layer(settings: Hyperparameters) -> str:
    layers, multipliers = len(settings.layers), len(settings.multipliers)
    return f"{settings.source}: {layers} layers but {multipliers} multipliers; give one a layer"


def _kept_strength(changes: Sequence[SteeringArtifact], settings: Hyperparameters) -> float:
    """What the one change that is applied says itself, and 1, as in earlier versions, of one layer that says nothing.

    Raises:
        ConfigError: several changes, each with a strength that was found for it alone; a part of one; or a strength
            that is not reliable.
    """
    change = changes[0]
    if len({one.id for one in changes}) > 1 or len(changes) > 1 and change.calibration is None:
        raise ConfigError(_one_a_layer(settings))
    if change.calibration is None:
        log.warning("%s: no multipliers, and the change at %s keeps no strength: m = 1", settings.alg_name, change.site)
        return 1.0
    if {site.layer for site in change.site.sites} != set(settings.layers):
        raise ConfigError(
            f"{settings.source}: the change at {change.site} keeps a strength for all of it, and layers is "
            f"{list(settings.layers)}; name them all, or give multipliers"
        )
    kept = change.kept_strength()
    log.warning("%s: no multipliers; %s: %s", settings.alg_name, change.site, kept)
    return kept.m


def _change(hparams: Any, vectors: Any, layer: int, concept_id: int) -> SteeringArtifact:
    """What is applied in a layer, with what it does in others."""
    if vectors is not None:
        if f"layer_{layer}" not in vectors:
            held = ", ".join(map(str, vectors)) or "nothing"
            raise ConfigError(f"the vectors given have no 'layer_{layer}', they hold {held}; set layers to those")
        return from_state(vectors[f"layer_{layer}"], layer, concept_id)
    if not hparams.steer_vector_load_dir:
        raise ConfigError(f"{hparams.alg_name} has nothing to apply; set steer_vector_load_dir or pass the vectors")
    folder = trained_folder(hparams.steer_vector_load_dir, hparams.alg_name, layer)
    if folder != Path(hparams.steer_vector_load_dir):
        log.info("%s holds nothing of layer %s; reading %s", hparams.steer_vector_load_dir, layer, folder)
    return read_whole(folder, layer, concept_id)


def _put(name: str, block: Any, model: Any, artifact: SteeringArtifact, site: ResolvedSite, multiplier: float) -> None:
    before = block_tokens(block).get(name)
    if before is not None:
        before.detach()
    token = SteeringToken(name, block)
    handle = GatedHandle(model, artifact, site, multiplier, token.is_active)
    token.on_detach(handle.remove)
    block.set_intervention(token, name)


def _warn_of_norm(artifact: SteeringArtifact, block: nn.Module) -> None:
    if "easyedit" in artifact.origin and artifact.form != "vector" and has_norm_after_mlp(block):
        log.warning(
            "%s: EasyEdit trained this change at the block's output, behind the norm that follows the feed-forward "
            "in this model; here it is added at the linear layer (Eq. 4), which is not the same",
            artifact.origin["easyedit"],
        )
