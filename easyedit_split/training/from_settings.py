"""Training as a hyper-parameter file says it: the bridge from `Hyperparameters` to `train` and `diff_mean`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import distributed
from ..changes.artifact import SteeringArtifact
from ..data.pairs import PreferencePair
from ..errors import ConfigError, TrainingError
from ..models.protocols import CausalLM, Tokenizer
from ..models.sites import Site
from ..settings.hyperparameters import Hyperparameters
from .checkpoint import SECONDS_BETWEEN
from .diff_mean import diff_mean, diff_mean_origin
from .objectives import Objective, make_objective
from .trainer import train, trained_origin


def train_from(
    hp: Hyperparameters,
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    folder: Path | None = None,
    progress: bool = False,
    checkpoint_seconds: float = SECONDS_BETWEEN,
) -> Iterator[tuple[int, SteeringArtifact]]:
    """One artifact for each of `hp.layers`, each trained alone.

    Args:
        folder: where checkpoints lie until the last layer is done, so that no layer is trained twice; None: none.

    Raises:
        ConfigError: no layers named.
        TrainingError: see `train`; the last good change is then in `folder`/last_good.
    """
    if not hp.layers:
        raise ConfigError("no layer named: set layers=[N]")
    finished: list[Path] = []
    for layer in hp.layers:
        checkpoint = folder / f".layer_{layer}.checkpoint" if folder else None
        try:
            artifact = train_layer(hp, model, tokenizer, pairs, layer, checkpoint, checkpoint_seconds, progress)
        except TrainingError as error:
            if distributed.rank() > 0:
                raise
            if checkpoint:  # it would only lead here again
                checkpoint.unlink(missing_ok=True)
            if folder is None or error.artifact is None:
                raise
            kept = error.artifact.save(folder / "last_good")
            raise TrainingError(f"{error}; the change before that step is in {kept}", error.artifact) from None
        if checkpoint:
            finished.append(checkpoint)
        yield layer, artifact
    for checkpoint in finished if distributed.rank() == 0 else ():
        checkpoint.unlink(missing_ok=True)


def train_layer(
    hp: Hyperparameters,
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    layer: int,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
    progress: bool = False,
) -> SteeringArtifact:
    """The change of one layer, by `train` or, for the training-free objective, by `diff_mean`.

    Args:
        checkpoint: see `train`; `diff_mean` keeps none.

    Raises:
        SteeringError: see `train` and `diff_mean`.
    """
    shared: dict[str, Any] = {"chat": hp.use_chat_template, "system_prompt": hp.system_prompt, "progress": progress}
    if hp.objective_name == "diff_mean":
        return diff_mean(model, tokenizer, pairs, layer=layer, **shared)
    return train(
        model,
        tokenizer,
        pairs,
        site=Site(layer, hp.component),
        form=hp.intervention_method,
        objective=_objective(hp),
        config=hp.train_config(),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        overwrite=hp.overwrite,
        **shared,
    )


def planned_source(hp: Hyperparameters, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """What the artifacts of these settings will say of themselves, as `folders` compares it; of no layer yet."""
    return {"form": hp.intervention_method, "site": f"layer ?, {hp.component}", "origin": _origin(hp, pairs)}


def _origin(hp: Hyperparameters, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    if hp.objective_name == "diff_mean":
        return diff_mean_origin(pairs, hp.use_chat_template, hp.system_prompt)
    return trained_origin(pairs, _objective(hp), hp.train_config(), hp.use_chat_template, hp.system_prompt)


def _objective(hp: Hyperparameters) -> Objective:
    return make_objective(hp.objective_name, **hp.objective_parameters())
