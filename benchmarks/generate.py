"""Steered generation against unsteered: with hooks, and merged.

    OMP_NUM_THREADS=1 python benchmarks/generate.py [--shape wide|deep|small] [--form vector] [--tokens 32]

Greedy, 16 prompts in a batch, every contender makes all its tokens. The three take turns in one process, so that they
meet the same machine; the overhead is the median over rounds of the ratio within a round. The floor counts the
products of the prompt, and of every new token with the vocabulary projection, once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from common import (
    FORMS,
    RANK,
    Shape,
    chosen_shapes,
    describe,
    machine,
    make_model,
    make_texts,
    make_tokenizer,
    matrix_rate,
    shape_options,
    table,
)

BATCH = 16


def artifact(shape: Shape, form: str) -> Any:
    import torch

    from easyedit_split import Site, SteeringArtifact
    from easyedit_split.changes.forms import make_delta

    delta = make_delta(form, shape.intermediate, shape.hidden, RANK)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.01)
    return SteeringArtifact(delta.requires_grad_(False), Site(shape.layer))


def products(shape: Shape, new: int) -> float:
    """Floating-point operations of one prompt and its `new` tokens."""
    d, f, kv = shape.hidden, shape.intermediate, shape.hidden * shape.kv_heads // shape.heads
    total = shape.prompt + new - 1
    linear = total * 2 * (2 * d * d + 2 * d * kv + 3 * d * f)
    return shape.layers * (linear + total * (total + 1) / 2 * 4 * d) + new * 2.0 * d * shape.vocabulary


def timed(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(shape: Shape, form: str, new: int, rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each contender's rounds."""
    from easyedit_split import generate

    model, tokenizer = make_model(shape), make_tokenizer()
    model.generation_config.min_new_tokens = new  # so that nobody stops early
    questions = [item["question"] for item in make_texts(shape)][:BATCH]
    change = artifact(shape, form)

    def run() -> None:
        generate(model, tokenizer, questions, max_new_tokens=new, batch_size=BATCH)

    def hooked() -> float:
        with change.attach(model, 1.0):
            return timed(run)

    def merged() -> float:
        undo = change.merge(model, 1.0)
        try:
            return timed(run)
        finally:
            undo.undo()

    contenders: dict[str, Callable[[], float]] = {"unsteered": lambda: timed(run), "hooks": hooked, "merged": merged}
    found: dict[str, list[float]] = {name: [] for name in contenders}
    timed(run)
    for number in range(rounds):
        order = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in order:
            found[name].append(contenders[name]())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shape_options(parser)
    parser.set_defaults(rounds=9)
    parser.add_argument("--form", choices=[*FORMS, "all"], default="all")
    parser.add_argument("--tokens", type=int, default=32)
    args = parser.parse_args()
    print(machine())
    for shape in chosen_shapes(args):
        print(f"\nGeneration, {shape.name}: {describe(shape)}; {BATCH} prompts, {args.tokens} new tokens each")
        rows = []
        for form in FORMS if args.form == "all" else (args.form,):
            rate = matrix_rate()
            floor = BATCH * products(shape, args.tokens) / rate
            found = measure(shape, form, args.tokens, args.rounds)
            for name, seconds in found.items():
                ratios = [a / b for a, b in zip(seconds, found["unsteered"], strict=True)]
                middle = statistics.median(seconds)
                rows.append([
                    form, name, f"{floor:.3f}", f"{middle:.3f}", f"{middle / floor:.2f}",
                    f"{(statistics.median(ratios) - 1) * 100:+.1f}%",
                ])  # fmt: skip
        table(["form", "", "floor s", "processor s", "x floor", "over unsteered"], rows)


if __name__ == "__main__":
    main()
