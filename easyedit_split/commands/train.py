"""`easyedit-split train`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, SiteError
from .common import checkpoint_option, data, hparams_options, load, output_dir, settings

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact
    from ..data.pairs import PreferencePair
    from ..settings.hyperparameters import Hyperparameters
    from ..training.suited import Suited


def options(parser: argparse.ArgumentParser) -> None:
    checkpoint_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    hp = settings(arguments)
    folder, pairs = output_dir(hp), data(hp, "train_data")

    from ..distributed import processes, rank, world
    from ..folders import check_free
    from ..storage.locks import folder_lock  # here, so that a mistake is told before torch is loaded
    from ..training.from_settings import planned_source, train_from
    from ..training.suited import suited

    with processes(folder_lock(folder)):
        model, tokenizer = load(hp)
        hp = _told(suited(hp, model, tokenizer, pairs))
        check_free(folder, planned_source(hp, pairs), hp.overwrite)
        _check_model(folder, model, hp.overwrite)
        start = time.monotonic()
        seconds = arguments.checkpoint_seconds
        for _, artifact in train_from(hp, model, tokenizer, pairs, folder, True, seconds):
            path = artifact.save(folder) if rank() == 0 else folder
            place, _, component = str(artifact.site).partition(", ")
            print(f"{place}: {artifact.form} at {component}, {len(pairs)} pairs -> {path}")
            if rank() == 0:
                _say_losses(hp, model, tokenizer, pairs, artifact)
        together = f" by {world()} processes" if world() > 1 else ""
        print(f"trained in {time.monotonic() - start:.1f} s{together}")
    return 0


def _check_model(folder: Path, model: Any, overwrite: bool) -> None:
    """The changes in the folder are of this model, in this precision; or, with `overwrite`, they go."""
    from ..folders import changes_in, clear
    from ..models.identity import check_model
    from ..models.parts import unwrap

    dtype = str(unwrap(model).dtype).removeprefix("torch.")
    for file, kept in changes_in(folder).items():
        described = kept.get("model") or {}
        try:
            if described.get("dtype", dtype) != dtype:
                raise ArtifactError("another precision")
            check_model(described, model)
        except ArtifactError:
            if not overwrite:
                raise ArtifactError(
                    f"{file} is of another model, or of this one in another precision: choose another output_dir, or "
                    "set overwrite=true to replace that run and what was made from it"
                ) from None
            clear(folder)
            return


def _say_losses(
    hp: Hyperparameters, model: Any, tokenizer: Any, pairs: Sequence[PreferencePair], artifact: SteeringArtifact
) -> None:
    from ..training.objectives import SftObjective, make_objective
    from ..training.plan import Plan
    from ..training.summary import summarise

    trained = hp.objective_name != "diff_mean"
    objective = make_objective(hp.objective_name, **hp.objective_parameters()) if trained else SftObjective()
    updates = Plan(len(pairs), hp.train_config()).steps if trained else 0
    factors = hp.steering_factors if trained else (1.0,)
    with suppress(SiteError):  # DiffMean works with models whose losses cannot be computed, too
        found = summarise(model, tokenizer, pairs, artifact, objective, factors, updates)
        print(found)
        if trained and found.grew:
            print(
                f"note: the loss that was trained grew from {found.first.objective:.3g} to {found.last.objective:.3g} "
                f"at m = {found.m:g}: training made it worse; lower lr ({hp.lr:g})"
            )


def _told(found: Suited) -> Hyperparameters:
    from ..distributed import rank

    for reason in found.reasons if rank() == 0 else ():
        print(f"note: {reason}")
    return found.hp
