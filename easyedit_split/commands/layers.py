"""`easyedit-split layers`."""

from __future__ import annotations

import argparse

from .common import data, hparams_options, load, output_dir, print_table, settings

TOO_LITTLE = 0.5  # nats of preference; DiffMean vectors that gain less say nothing about a layer


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", type=float, default=1.0, metavar="NATS", help="utility to spend (default 1)")
    parser.add_argument("--pairs", type=int, default=64, metavar="N", help="use so many training pairs (default 64)")
    parser.add_argument("--points", type=int, default=21, metavar="N", help="strengths swept a layer (default 21)")
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..analysis.logodds import nats
    from ..sweeps.layer_search import best_layer, search_layers, write_layers

    hp = settings(arguments)
    folder = output_dir(hp)
    pairs = data(hp, "train_data")[: arguments.pairs]
    model, tokenizer = load(hp)
    named = any(item.startswith("layers=") for item in arguments.settings)  # a file's own layer is what is looked for
    scores = search_layers(
        model, tokenizer, pairs, budget=arguments.budget, layers=hp.layers if named else None,
        points=arguments.points, chat=hp.use_chat_template, system_prompt=hp.system_prompt,
        progress=True,
    )  # fmt: skip
    best = best_layer(scores)
    heads = ["layer", f"gain at {nats(arguments.budget)}", "95% interval", "reach of m", ""]
    rows = [[s.layer, s.gain, f"[{s.low:.2f}, {s.high:.2f}]", s.reach, "best" if s is best else ""] for s in scores]
    print_table(heads, rows)
    written = write_layers(scores, arguments.budget, folder)
    if best.gain < TOO_LITTLE:
        print(f"note: no layer gains {nats(TOO_LITTLE)}, so DiffMean cannot rank them here: train a few layers instead")
    print(f"layer {best.layer}: set layers=[{best.layer}] -> {', '.join(map(str, written))}")
    return 0
