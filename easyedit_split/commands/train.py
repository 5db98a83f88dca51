"""`easyedit-split train`."""

from __future__ import annotations

import argparse
import time

from .common import checkpoint_option, data, hparams_options, load, output_dir, settings


def options(parser: argparse.ArgumentParser) -> None:
    checkpoint_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    hp = settings(arguments)
    folder, pairs = output_dir(hp), data(hp, "train_data")

    from ..distributed import processes, rank, world
    from ..storage.locks import folder_lock  # here, so that a mistake is told before torch is loaded
    from ..training.from_settings import train_from

    with processes(folder_lock(folder)):
        model, tokenizer = load(hp)
        start = time.monotonic()
        seconds = arguments.checkpoint_seconds
        for layer, artifact in train_from(hp, model, tokenizer, pairs, folder, True, seconds):
            path = artifact.save(folder) if rank() == 0 else folder
            print(f"layer {layer}: {artifact.form} at {artifact.site.component}, {len(pairs)} pairs -> {path}")
        together = f" by {world()} processes" if world() > 1 else ""
        print(f"trained in {time.monotonic() - start:.1f} s{together}")
    return 0
