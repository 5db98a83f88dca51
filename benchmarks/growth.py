"""How cost grows: processor time and memory against pairs, prompt tokens and strengths.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--axis pairs] [--largest 1000] [--plot docs/growth]

Training is SPLIT of a vector in two epochs; a sweep gives sums. Random weights, one thread; each axis of each work has
a process of its own, which goes through the sizes in ascending order, so that the memory's high-water mark over the
loaded model is that of the size just run. An exponent of 1 is linear: it is the slope of the logarithms between the two
largest sizes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common import (
    FACTORS,
    SHAPES,
    Shape,
    describe,
    machine,
    make_model,
    make_pairs,
    make_tokenizer,
    race,
    resident,
    serve,
    table,
)

STRENGTHS = 5
#: axis -> its shape, and sizes
AXES: dict[str, tuple[Shape, tuple[int, ...]]] = {
    "pairs": (SHAPES["small"], (100, 300, 1000, 3000, 10000)),
    "prompt": (replace(SHAPES["wide"], pairs=4), (20, 60, 200, 600, 2000)),
    "strengths": (replace(SHAPES["small"], pairs=32), (5, 15, 50, 200)),
}
WORK = {"pairs": ("train", "sweep"), "prompt": ("train", "sweep"), "strengths": ("sweep",)}


def sizes_of(axis: str, largest: int) -> list[int]:
    return [size for size in AXES[axis][1] if size <= largest]


def sized(axis: str, size: int) -> Shape:
    shape, _ = AXES[axis]
    return shape if axis == "strengths" else replace(shape, **{axis: size})


def contender(name: str, largest: int) -> Callable[[], dict[str, float]]:
    """Rounds of `name`, work:axis: each is the next size."""
    from easyedit_split import Site, SteeringArtifact, TrainConfig, sweep, train
    from easyedit_split.changes.forms import Vector

    work, axis = name.split(":")
    sizes = sizes_of(axis, largest)
    model, tokenizer = make_model(sized(axis, sizes[-1])), make_tokenizer()
    todo = [(size, sized(axis, size), make_pairs(sized(axis, size))) for size in sizes]
    loaded = resident()

    def run() -> dict[str, float]:
        size, shape, pairs = todo.pop(0)
        if work == "train":
            config = TrainConfig(n_epochs=2, batch_size=shape.batch, steering_factors=FACTORS)
            train(model, tokenizer, pairs, site=Site(shape.layer), form="vector", config=config)
        else:
            values = size if axis == "strengths" else STRENGTHS
            delta = Vector(shape.intermediate, shape.hidden)
            delta.db.data.fill_(0.1)
            artifact = SteeringArtifact(delta.requires_grad_(False), Site(shape.layer))
            sweep(model, tokenizer, pairs, artifact, [2.0 * k / (values - 1) - 1.0 for k in range(values)], "sum")
        return {"high": resident("VmHWM") - loaded}

    return run


def measure(axis: str, largest: int) -> list[tuple[str, int, float, float]]:
    """Work, size, processor seconds, MB."""
    found, sizes = [], sizes_of(axis, largest)
    for work in WORK[axis]:
        name = f"{work}:{axis}"
        figures = race([name], __file__, ["--largest", str(largest)], len(sizes))[name]
        found += [(work, *row) for row in zip(sizes, figures.busy, figures.own["high"], strict=True)]
    return found


def exponent(sizes: list[int], costs: list[float]) -> float:
    return math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2])


def plot(found: dict[str, list[tuple[str, int, float, float]]], path: Path) -> None:
    from easyedit_split.analysis.canvas import blank, save_figure, style, tidy

    figure = blank(3.2)
    for axes, (axis, rows) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for number, work in enumerate(("train", "sweep")):
            points = [(size, seconds) for kind, size, seconds, _ in rows if kind == work]
            if points:
                axes.loglog(*zip(*points, strict=True), label=work, linewidth=1.0, markersize=4, **style(number))
        axes.set_xlabel({"pairs": "Pairs", "prompt": "Prompt (tokens)", "strengths": "Strengths"}[axis])
        tidy(axes)
    first = figure.axes[0]
    first.set_ylabel("Processor time (s)")
    first.legend(frameon=False)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", action="append", choices=list(AXES))
    parser.add_argument("--largest", type=int, default=10_000, help="leave out sizes above this")
    parser.add_argument("--plot", type=Path, help="write PATH.png and PATH.svg")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(contender(options.worker, options.largest))
        return
    print(machine())
    found = {}
    for axis in options.axis or AXES:
        found[axis] = measure(axis, options.largest)
        print(f"\n{axis}: {describe(AXES[axis][0])}; {STRENGTHS} strengths", flush=True)
        rows = [[work, str(n), f"{s:.2f}", f"{1e3 * s / n:.2f}", f"{mb:.0f}"] for work, n, s, mb in found[axis]]
        table(["", axis, "processor s", f"ms for one of {axis}", "peak MB"], rows)
        for work in WORK[axis]:
            sizes, costs = (
                [n for w, n, _, _ in found[axis] if w == work],
                [s for w, _, s, _ in found[axis] if w == work],
            )
            print(f"{work}: exponent {exponent(sizes, costs):.2f}", flush=True)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
