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
from ..models.sites import Site, Sites, sites_of
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
) -> Iterator[tuple[str, SteeringArtifact]]:
    """One artifact for each of `hp.layers`, each trained alone, or with `hp.joint` one for all of them; with the layers
    as files name them (`14`, `12-14`).

    Args:
        folder: where checkpoints lie until the last layer is done, so that no layer is trained twice; None: none.

    Raises:
        ConfigError: no layers named.
        TrainingError: see `train`; the last good change is then in `folder`/last_good.
    """
    if not hp.layers:
        raise ConfigError("no layer named: set layers=[N]")
    finished: list[Path] = []
    for layers in hp.layer_groups:
        named = site_from(hp, layers).layers
        checkpoint = folder / f".layer_{named}.checkpoint" if folder else None
        try:
            artifact = train_layer(hp, model, tokenizer, pairs, layers, checkpoint, checkpoint_seconds, progress)
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
        yield named, artifact
    for checkpoint in finished if distributed.rank() == 0 else ():
        checkpoint.unlink(missing_ok=True)


def train_layer(
    hp: Hyperparameters,
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    layers: int | Sequence[int],
    checkpoint: Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
    progress: bool = False,
) -> SteeringArtifact:
    """The change of one layer, or of several together, by `train` or, for the training-free objective, by `diff_mean`.

    Args:
        checkpoint: see `train`; `diff_mean` keeps none.

    Raises:
        SteeringError: see `train` and `diff_mean`.
    """
    shared: dict[str, Any] = {"chat": hp.use_chat_template, "system_prompt": hp.system_prompt, "progress": progress}
    if hp.objective_name == "diff_mean":
        return diff_mean(model, tokenizer, pairs, layer=layers, **shared)
    return train(
        model,
        tokenizer,
        pairs,
        site=site_from(hp, layers),
        form=hp.intervention_method,
        objective=_objective(hp),
        config=hp.train_config(),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        overwrite=hp.overwrite,
        **shared,
    )


def layers_of_one(hp: Hyperparameters) -> tuple[int, ...]:
    """The layers of the one change that the settings make: a single layer, or several with `joint`.

    Raises:
        ConfigError: no layer named, or several changes.
    """
    if len(hp.layer_groups) != 1:
        where = f"{hp.source}: " if hp.source else ""
        raise ConfigError(
            f"{where}layers = {list(hp.layers)} is {len(hp.layer_groups)} changes, and here one is trained: set "
            "layers=[N], or joint=true for one change of all these layers"
        )
    return hp.layer_groups[0]


def site_from(hp: Hyperparameters, layers: int | Sequence[int]) -> Site | Sites:
    """Where the change of these layers goes.

    Raises:
        SiteError: a layer given twice.
    """
    return sites_of(Site(layer, hp.component) for layer in ([layers] if isinstance(layers, int) else layers))


def planned_source(hp: Hyperparameters, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """What the artifacts of these settings will say of themselves, as `folders` compares it; of no layer yet."""
    site = str(site_from(hp, hp.layers)) if hp.joint and hp.layers else f"layer ?, {hp.component}"
    return {"form": hp.intervention_method, "site": site, "origin": _origin(hp, pairs)}


def _origin(hp: Hyperparameters, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    if hp.objective_name == "diff_mean":
        return diff_mean_origin(pairs, hp.use_chat_template, hp.system_prompt)
    return trained_origin(pairs, _objective(hp), hp.train_config(), hp.use_chat_template, hp.system_prompt)


def _objective(hp: Hyperparameters) -> Objective:
    return make_objective(hp.objective_name, **hp.objective_parameters())
