"""`easyedit-split train`."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from .common import checkpoint_option, data, hparams_options, load, output_dir, settings

if TYPE_CHECKING:
    from ..settings.hyperparameters import Hyperparameters
    from ..training.suited import Suited


def options(parser: argparse.ArgumentParser) -> None:
    checkpoint_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    hp = settings(arguments)
    folder, pairs = output_dir(hp), data(hp, "train_data")

    from ..distributed import processes, rank, world
    from ..storage.locks import folder_lock  # here, so that a mistake is told before torch is loaded
    from ..training.from_settings import train_from
    from ..training.suited import suited

    with processes(folder_lock(folder)):
        model, tokenizer = load(hp)
        hp = _told(suited(hp, model, tokenizer, pairs))
        start = time.monotonic()
        seconds = arguments.checkpoint_seconds
        for layer, artifact in train_from(hp, model, tokenizer, pairs, folder, True, seconds):
            path = artifact.save(folder) if rank() == 0 else folder
            print(f"layer {layer}: {artifact.form} at {artifact.site.component}, {len(pairs)} pairs -> {path}")
        together = f" by {world()} processes" if world() > 1 else ""
        print(f"trained in {time.monotonic() - start:.1f} s{together}")
    return 0


def _told(found: Suited) -> Hyperparameters:
    from ..distributed import rank

    for reason in found.reasons if rank() == 0 else ():
        print(f"note: {reason}")
    return found.hp
