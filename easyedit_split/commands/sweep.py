"""`easyedit-split sweep`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import checkpoint_option, data, hparams_options, load, load_artifact, output_dir, print_table, settings


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--artifact", required=True, metavar="DIR", help="the folder that train wrote")
    parser.add_argument("--out", metavar="FILE", help="the table to write (default: sweep.parquet in output_dir)")
    checkpoint_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ..distributed import processes, rank
    from ..storage.locks import folder_lock
    from ..sweeps.run import sweep

    hp = settings(arguments)
    artifact = load_artifact(arguments.artifact, hp)
    pairs = data(hp, "test_data")
    target = Path(arguments.out or output_dir(hp) / "sweep.parquet")
    partial = target.with_name(f".{target.name}.partial")
    factors = hp.factors or np.linspace(-20, 20, 41)
    with processes(folder_lock(target.parent)):
        model, tokenizer = load(hp)
        table = sweep(
            model, tokenizer, pairs, artifact, factors, hp.reduction,
            progress=True, partial=partial, partial_seconds=arguments.checkpoint_seconds,
        )  # fmt: skip
        if rank() > 0:
            return 0
        path = table.save(target)
        partial.unlink(missing_ok=True)
    preference, utility = table.preference(), table.utility()
    undefined = int(np.isnan(utility).sum())
    rows = [
        [float(m), float(p.mean()), float(u[~np.isnan(u)].mean()) if (~np.isnan(u)).any() else "undefined"]
        for m, p, u in zip(table.factors, preference, utility, strict=True)
    ]
    print_table(["m", "preference", "utility"], rows)
    print(f"{len(pairs)} pairs, nats ({hp.reduction}), {undefined} undefined utility points -> {path}")
    return 0
