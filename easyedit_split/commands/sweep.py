"""`easyedit-split sweep`."""

from __future__ import annotations

import argparse

from .common import data, hparams_options, load, output_dir, print_table, settings


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--artifact", required=True, metavar="DIR", help="the folder that train wrote")
    parser.add_argument("--out", metavar="FILE", help="the table to write (default: sweep.parquet in output_dir)")
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ..artifact import SteeringArtifact
    from ..sweeps import sweep

    hp = settings(arguments)
    artifact = SteeringArtifact.load(arguments.artifact, hp.layers[0] if len(hp.layers) == 1 else None)
    pairs = data(hp, "test_data")
    target = arguments.out or output_dir(hp) / "sweep.parquet"
    model, tokenizer = load(hp)
    factors = hp.factors or np.linspace(-20, 20, 41)
    table = sweep(model, tokenizer, pairs, artifact, factors, hp.reduction, progress=True)
    path = table.save(target)
    preference, utility = table.preference(), table.utility()
    undefined = int(np.isnan(utility).sum())
    rows = [
        [float(m), float(p.mean()), float(u[~np.isnan(u)].mean()) if (~np.isnan(u)).any() else "undefined"]
        for m, p, u in zip(table.factors, preference, utility, strict=True)
    ]
    print_table(["m", "preference", "utility"], rows)
    print(f"{len(pairs)} pairs, nats ({hp.reduction}), {undefined} undefined utility points -> {path}")
    return 0
