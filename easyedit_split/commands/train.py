"""`easyedit-split train`."""

from __future__ import annotations

import argparse
import time

from .common import data, hparams_options, load, output_dir, settings

options = hparams_options


def run(arguments: argparse.Namespace) -> int:
    from ..training import train_from

    hp = settings(arguments)
    folder, pairs = output_dir(hp), data(hp, "train_data")
    model, tokenizer = load(hp)
    start = time.monotonic()
    for layer, artifact in train_from(hp, model, tokenizer, pairs, folder, progress=True):
        path = artifact.save(folder)
        print(f"layer {layer}: {artifact.form} at {artifact.site.component}, {len(pairs)} pairs -> {path}")
    print(f"trained in {time.monotonic() - start:.1f} s")
    return 0
