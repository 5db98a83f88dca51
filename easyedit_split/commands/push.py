"""`easyedit-split push`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .common import hparams_options, load_artifact, settings

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact
    from ..formats.hub import Place
    from ..sweeps.table import SweepTable


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="RUN", help="the folder of the change; of several, layers=[N] says which")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository, which is made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it a private one")
    parser.add_argument("--license", "--licence", metavar="WORD", help="the hub's word for one: mit, apache-2.0, …")
    parser.add_argument(
        "--base-model", metavar="OWNER/NAME", help="the model's name on the hub, where it was loaded from a folder"
    )
    parser.add_argument(
        "--sweep", metavar="FILE", help="the sweep that the card shows (default: the change's own beside it, if any)"
    )
    parser.epilog = "It needs a token that may write: hf auth login, or HF_TOKEN."
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..formats.hub import find
    from ..sweeps.table import SweepTable

    hp = settings(arguments)
    place = find(arguments.artifact)
    artifact = load_artifact(place, hp)
    sweep = SweepTable.load(arguments.sweep) if arguments.sweep else _beside(place, artifact)
    address = artifact.push_to_hub(
        arguments.repository, base_model=arguments.base_model, license=arguments.license, sweep=sweep,
        private=arguments.private,
    )  # fmt: skip
    curves = "with the curves of its sweep" if sweep is not None else "without curves, for want of a sweep"
    print(f"{artifact.form} at {artifact.site}, {curves} -> {address}")
    return 0


def _beside(place: Place, artifact: SteeringArtifact) -> SweepTable | None:
    """The change's own sweep, unless it was made on other weights than the change."""
    from ..run_folder import own_sweep

    found = own_sweep(place.home, artifact)
    return None if found is None or found[1].header.get("any_model") else found[1]
