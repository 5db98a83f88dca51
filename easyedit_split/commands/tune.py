"""`easyedit-split tune`."""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from .common import data, hparams_options, load, output_dir, print_table, settings

LEAST_POINTS = 3  # 0, and one on each side


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tries", type=int, default=12, metavar="N", help="settings to try (default 12)")
    parser.add_argument("--budget", type=float, default=1.0, metavar="NATS", help="utility to spend (default 1)")
    parser.add_argument("--points", type=int, default=15, metavar="N", help="strengths of each sweep (default 15)")
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..analysis.logodds import nats
    from ..storage.files import write_text
    from ..storage.locks import folder_lock
    from ..sweeps.tuning import best_try, rows, tune, tuned_file
    from ..training.suited import suited

    hp = settings(arguments)
    if arguments.points < LEAST_POINTS:
        raise ConfigError(f"--points {arguments.points} is too few for a sweep: give {LEAST_POINTS} or more")
    folder, pairs = output_dir(hp), data(hp, "train_data")
    with folder_lock(folder):
        model, tokenizer = load(hp)
        found = suited(hp, model, tokenizer, pairs)
        for reason in found.reasons:
            print(f"note: {reason}")
        tries = tune(
            found.hp, model, tokenizer, pairs, folder, tries=arguments.tries, budget=arguments.budget,
            points=arguments.points, say=lambda text: print(text, flush=True),
        )  # fmt: skip
        best = best_try(tries)
        print_table([*best.values, f"gain at {nats(arguments.budget)}", "95% interval"], list(rows(tries)))
        note = (
            f"{len(tries)} settings tried on a quarter of {len(pairs)} training pairs, held out; this one gained "
            f"{best.gain:.2f} nats within {nats(arguments.budget)}, and the best of several is flattered by its choice"
        )
        path = write_text(folder / "tuned.yaml", tuned_file(found.hp, best, note))
    print(f"{note} -> {path}")
    return 0
