"""A sweep over strengths against its floor, a naive loop, and EasyEdit's loss mode.

    OMP_NUM_THREADS=1 [EASYEDIT_HOME=…] python benchmarks/sweep.py [--shape wide|deep|small] [--values 21]

Ours and the naive loop sweep all values in a round. EasyEdit's loss mode runs one process for every value and polarity,
batch 1; a round is one such pass, and the table multiplies it by their number, with and without its start-ups.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from common import (
    Shape,
    chosen_shapes,
    contenders,
    count,
    describe,
    machine,
    make_model,
    make_pairs,
    make_tokenizer,
    matrix_rate,
    race,
    serve,
    shape_options,
    table,
)


def factors(values: int) -> Any:
    import numpy as np

    return np.linspace(-10, 10, values)


def random_artifact(shape: Shape) -> Any:
    import torch

    from easyedit_split import Site, SteeringArtifact
    from easyedit_split.changes.forms import make_delta

    delta = make_delta("local_weight", shape.intermediate, shape.hidden, 1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.01)
    return SteeringArtifact(delta.requires_grad_(False), Site(shape.layer))


def ours(shape: Shape, values: int) -> Callable[[], Any]:
    from easyedit_split import sweep

    model, tokenizer, pairs = make_model(shape), make_tokenizer(), make_pairs(shape)
    return lambda: sweep(model, tokenizer, pairs, random_artifact(shape), factors(values), "sum")


def naive(shape: Shape, values: int) -> Callable[[], Any]:
    """Two full forwards of each batch of 8 pairs at each value, with all logits."""
    import torch
    import torch.nn.functional as F

    from easyedit_split.data.tokens import Encoder

    model, tokenizer, pairs = make_model(shape), make_tokenizer(), make_pairs(shape)
    delta = random_artifact(shape).delta

    def work() -> None:
        encoded = Encoder(tokenizer).pairs(pairs)
        module = model.model.layers[shape.layer].mlp.down_proj
        for m in factors(values).tolist():
            hook = module.register_forward_hook(lambda mod, a, out, m=m: out + m * delta(a[0]))
            for which in ("matching", "not_matching"):
                for start in range(0, len(encoded), 8):
                    ids = torch.tensor([[*e.prompt, *getattr(e, which)] for e in encoded[start : start + 8]])
                    with torch.no_grad():
                        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
                    answers = logits[:, shape.prompt - 1 : -1].flatten(0, 1)
                    F.cross_entropy(answers, ids[:, shape.prompt :].flatten(), reduction="none")
            hook.remove()

    return work


def easyedit(shape: Shape, values: int) -> Callable[[], Any]:
    """One pass of its loss mode: one value, one polarity, batch 1."""
    from easyedit import host_of

    host = host_of(shape)
    weights = {"lambda_p": 1.0, "lambda_n": 0.3, "gamma": 0.0, "theta": 0.0}
    options = {"batch_size": 1, "inference": True, "steering_factors": [4.0]}
    return lambda: host.train("local_weight", 1, 0.0, weights, kind="winning_only", **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shape_options(parser)
    parser.set_defaults(shape="wide")
    parser.add_argument("--values", type=int, default=21)
    args = parser.parse_args()
    if args.worker:
        (shape,) = chosen_shapes(args)
        serve({"ours": ours, "naive": naive, "easyedit": easyedit}[args.worker](shape, args.values))
        return
    print(machine())
    for shape in chosen_shapes(args):
        print(f"\nSweep, {shape.name}: {describe(shape)}; {args.values} values, local weight, {args.rounds} rounds")
        options = ["--shape", shape.name, "--pairs", str(shape.pairs), "--values", str(args.values)]
        before = matrix_rate()
        found = race(args.only or contenders(), __file__, options, args.rounds)
        rate = (before + matrix_rate()) / 2
        per_pair = count(shape).scoring(args.values) + args.values * count(shape, "local_weight").site / 2
        floor = shape.pairs * per_pair / rate
        times = {name: (figures.median, figures.wall) for name, figures in found.items()}
        if "easyedit" in found:
            passes = 2 * args.values
            one, start = found["easyedit"], found["easyedit"].startup
            times["easyedit"] = (passes * one.median, passes * one.wall)
            times["easyedit, with start-ups"] = (passes * (one.median + start), passes * (one.wall + start))
        base = times.get("ours", next(iter(times.values())))[0]
        rows = [
            [
                name, f"{floor:.2f}", f"{busy:.2f}", f"{wall:.2f}", f"{busy / floor:.2f}", f"{busy / base:.1f}",
                f"{found[name.split(',')[0]].peak:.0f}", f"{rate / 1e9:.0f}",
            ]
            for name, (busy, wall) in times.items()
        ]  # fmt: skip
        table(["", "floor s", "processor s", "wall s", "x floor", "x ours", "peak MB", "GFLOP/s"], rows)


if __name__ == "__main__":
    main()
