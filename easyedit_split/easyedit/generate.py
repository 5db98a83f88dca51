"""Training for EasyEdit's `BaseVectorGenerator`: its data and settings in, artifacts out and on disk."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..changes.artifact import SteeringArtifact
from ..errors import ConfigError
from ..settings.hyperparameters import Hyperparameters
from ..training.from_settings import train_layer
from .artifacts import why_no_plain_vector
from .data import concept_pairs
from .dictionary_token import take_away_tokens
from .host import load_wrapper, plain_model, wrapped_blocks
from .hparams import frozen

log = logging.getLogger(__name__)


def generate_vectors(hparams: Any, dataset: Any, dataset_name: str | None = None, model: Any = None) -> dict[str, Any]:
    """Train one change for each layer and concept of EasyEdit's `dataset`; with `joint`, the layers' together.

    Writes `<steer_vector_output_dir>/<alg_name>_<form>/layer_<l>.safetensors` when `save_vectors` is true, with
    `concept_<id>/` between for data of several concepts, each file whole and right after its training.
    `model` is EasyEdit's wrapper; without one, EasyEdit loads it. It is left as it was found.

    Returns:
        `{"layer_<l>": artifact}`, or `{"layer_<l>": {concept_id: artifact}}` for several concepts. Of layers that were
        trained together each has its part, which EasyEdit applies with the layer's own multiplier.

    Raises:
        ConfigError, DataError, SiteError, TrainingError: one sentence with the value and the remedy.
        HostError: `model` is no wrapper of EasyEdit.
    """
    settings = _settings(hparams)
    concepts, several = concept_pairs(
        dataset, dataset_name, getattr(hparams, "max_concepts", None), settings.max_num_of_examples
    )
    folder = Path(hparams.steer_vector_output_dir) / f"{settings.alg_name}_{settings.intervention_method}"
    wrapper = load_wrapper(hparams) if model is None else model
    results: dict[str, dict[int, SteeringArtifact]] = {f"layer_{layer}": {} for layer in settings.layers}
    with take_away_tokens(wrapped_blocks(wrapper)), plain_model(wrapper) as plain:
        for layers in settings.layer_groups:
            for concept in concepts:
                artifact = train_layer(settings, plain, wrapper.tokenizer, concept.pairs, layers)
                for part in artifact.parts:
                    results[f"layer_{part.site.layer}"][concept.concept_id] = part
                if getattr(hparams, "save_vectors", True):
                    _save(artifact, folder / f"concept_{concept.concept_id}" if several else folder)
    return {layer: trained if several else trained[concepts[0].concept_id] for layer, trained in results.items()}


def _settings(hparams: Any) -> Hyperparameters:
    settings = frozen(hparams)
    if not settings.layers:
        raise ConfigError(f"{settings.source}: layers is empty; give the layers to train, for example layers: [14]")
    if settings.alg_name == "unified_sft":
        for name, neutral in (("pos_loss_weight", 1.0), ("neg_loss_weight", 0.0), ("margin_penalty_weight", 0.0)):
            if getattr(hparams, name, neutral) != neutral:
                raise ConfigError(
                    f"{settings.source}: {name} = {getattr(hparams, name)} has no meaning for unified_sft; "
                    "use alg_name: split"
                )
    return settings


def _save(artifact: SteeringArtifact, folder: Path) -> None:
    if artifact.form == "vector" and not artifact.acts_at_block_output:
        for part in artifact.parts:
            log.warning("EasyEdit's layer_%s.pt is not written: %s", part.site.layer, why_no_plain_vector(part))
    log.info("wrote %s", artifact.save(folder))
