"""This package beside its peers on one real model: SmolLM2-135M-Instruct, PowerSeeking, one thread.

    EASYEDIT_SPLIT_DATA=… [EASYEDIT_HOME=…] [PEERS_HOME=…] python benchmarks/peers.py [--row sweep] [--pairs 200]

A row is one piece of work; its contenders have a process each, load the model, and take turns. Peers run in virtual
environments of their own (`peer_environments.py`), made when first asked for, except with `--here`: then only the
contenders run that need none. EasyEdit runs where `EASYEDIT_HOME` names a checkout. Every row ends with what came of
the last round, by the same measure for all: losses on the same test pairs, or the texts.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peer_environments as environments
from common import QUIET, Figures, Worker, machine, private_output, serve, table
from peer_task import Contender, Pair, Task


@dataclass(frozen=True)
class Peer:
    """A contender: where it runs, and the function that makes it, `module.function`."""

    name: str
    made_by: str
    arguments: dict[str, Any] = field(default_factory=dict)
    environment: str = environments.OURS
    times: Callable[[Task], int] | None = None  # a round is one of so many passes

    def contender(self, task: Task) -> Contender:
        module, function = self.made_by.split(".")
        made = getattr(importlib.import_module(module), function)
        return made(**self.arguments)(task) if self.arguments else made(task)

    def missing(self, here: bool) -> str:
        """Why it cannot run; "" if it can."""
        if self.name.startswith("EasyEdit") and not os.environ.get("EASYEDIT_HOME"):
            return "EASYEDIT_HOME names no checkout"
        return "left out with --here" if here and self.environment else ""


@dataclass(frozen=True)
class Row:
    """One piece of work: the first contender is ours."""

    title: str
    peers: tuple[Peer, ...]
    forms: tuple[str, ...] = ("vector",)
    cannot: str = ""  # what a contender does not do, and why


T, M = "peer_training", "peer_measuring"
EE = "EasyEdit `spilt`"
ROWS = {
    "split": Row(
        "SPLIT training",
        (
            Peer("ours", f"{T}.ours", {"objective": "split"}),
            Peer(EE, f"{T}.easyedit"),
            Peer("naive loop", f"{T}.naive"),
        ),
        ("vector", "lora", "local_weight"),
    ),
    "lora": Row(
        "SPLIT for one LoRA",
        (
            Peer("ours", f"{T}.ours", {"objective": "split", "strengths": (1.0,)}),
            Peer("PEFT and a loop", f"{T}.peft", environment="peft"),
        ),
        ("lora",),
    ),
    "sft": Row(
        "SFT for one LoRA",
        (
            Peer("ours", f"{T}.ours", {"objective": "sft", "strengths": (1.0,)}),
            Peer("TRL", f"{T}.trl", environment="trl"),
        ),
        ("lora",),
        "TRL's trainers have no SPLIT, so this row is SFT",
    ),
    "reps": Row(
        "RePS vector, both polarities",
        (
            Peer("ours", f"{T}.ours", {"objective": "reps"}),
            Peer("RePS loss in pyreft", f"{T}.pyreft_reps", environment="pyreft"),
        ),
        cannot="AxBench itself is in no package registry; its loss is restated",
    ),
    "diffmean": Row(
        "DiffMean at every layer",
        (
            Peer("ours", f"{M}.ours_diff_mean"),
            Peer("steering-vectors", f"{M}.steering_vectors", environment="steering-vectors"),
            Peer("repeng", f"{M}.repeng", environment="repeng"),
        ),
        cannot="steering-vectors and repeng read one token a text; the mean over an answer they cannot. "
        "repeng takes a principal component, and no vector at block 0",
    ),
    "sweep": Row(
        "sweep over strengths, sums",
        (
            Peer("ours", f"{M}.ours_sweep"),
            Peer("hook loop with a cache", f"{M}.hook_loop"),
            Peer("EasyEdit's loss mode", f"{M}.easyedit_pass", times=lambda task: 2 * task.points),
        ),
    ),
    "generation": Row(
        "steered generation",
        (
            Peer("ours", f"{M}.ours_generation"),
            Peer("steering-vectors", f"{M}.steering_vectors_generation", environment="steering-vectors"),
            Peer("pyreft", f"{M}.pyreft_generation", environment="pyreft"),
        ),
        cannot="pyreft steers the prompt, and not the new tokens",
    ),
    "layers": Row(
        "search over every layer", (Peer("ours", f"{M}.ours_layers"), Peer("loop over layers", f"{M}.layer_loop"))
    ),
    "end": Row(
        "end to end: train, sweep, fit, advice",
        (Peer("ours", f"{M}.ours_end_to_end"),),
        cannot="EasyEdit's figure is the sum of its parts: training, and 2 passes of its loss mode at each strength",
    ),
}


# --- the task ---------------------------------------------------------------------------------------------------------


def make_task(options: argparse.Namespace, form: str) -> Task:
    """Model folder and pairs, as text and as tokens."""
    from easyedit_split import load_model
    from easyedit_split.data.tokens import Encoder
    from easyedit_split.models.loading import folder_of

    folder = folder_of(options.model)
    _, tokenizer = load_model(options.model)
    train, test = read_pairs(options.data)
    encoder = Encoder(tokenizer)

    def pairs(rows: Any) -> list[Pair]:
        found = []
        for row in rows:
            encoded = encoder.pair(row)
            ends = "" if encoder.end_id is None else tokenizer.decode([encoder.end_id])
            found.append(
                Pair(
                    row.question, row.matching.strip(" "), row.not_matching.strip(" "),
                    tokenizer.decode(encoded.prompt), ends, list(encoded.prompt), list(encoded.matching),
                    list(encoded.not_matching),
                )
            )  # fmt: skip
        return found

    return Task(
        folder=str(folder), layer=options.layer, train=pairs(train[: options.pairs]),
        test=pairs(test[: options.test_pairs]), form=form, epochs=options.epochs, batch=options.batch,
        prompts=options.prompts, tokens=options.tokens, points=options.points,
    )  # fmt: skip


def read_pairs(data: str | None) -> tuple[Any, Any]:
    """Training and test pairs of PowerSeeking, or with `demo` those of the shipped reviews."""
    from easyedit_split import flat_pairs, load_pairs
    from easyedit_split.data.paper_sets import paper_split
    from easyedit_split.demo import data_path

    if data == "demo":
        train, test = (flat_pairs(load_pairs(data_path("reviews", part))) for part in ("train", "test"))
        return train, test
    if not data:
        raise SystemExit("no data: set EASYEDIT_SPLIT_DATA, or give --data, a folder with powerseeking/")
    split = paper_split("powerseeking", data)
    return split.train, split.test


def describe(task: Task) -> str:
    prompt = statistics.mean(len(p.prompt) for p in task.train)
    answer = statistics.mean(len(p.ids(w)) for p in task.train for w in ("matching", "not_matching"))
    return (
        f"{len(task.train)} pairs of {prompt:.0f}+{answer:.0f} tokens on average, {len(task.test)} test pairs, "
        f"layer {task.layer}, {task.epochs} epochs, batch {task.batch}, {task.points} strengths, "
        f"{task.prompts} prompts x {task.tokens} tokens"
    )


# --- running ----------------------------------------------------------------------------------------------------------


def run(row: Row, task: Task, options: argparse.Namespace) -> Iterator[tuple[Peer, Figures | str, dict[str, float]]]:
    """Each contender's figures, or why it has none, and what came of its last round."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        file = Path(place) / "task.json"
        task.save(file)
        started: dict[str, Worker | str] = {}
        for peer in chosen(row, options):
            started[peer.name] = peer.missing(options.here) or start(peer, options.row_name, task.form, file, stack)
        for _ in range(options.rounds):
            for name, worker in started.items():
                if isinstance(worker, Worker):
                    try:
                        worker.round()
                    except RuntimeError as error:
                        started[name] = str(error)
        for peer in chosen(row, options):
            worker = started[peer.name]
            yield (peer, worker.figures, worker.check()) if isinstance(worker, Worker) else (peer, worker, {})


def chosen(row: Row, options: argparse.Namespace) -> list[Peer]:
    return [peer for peer in row.peers if not options.only or peer.name in options.only]


def start(peer: Peer, row: str, form: str, file: Path, stack: ExitStack) -> Worker | str:
    """A contender that is ready, or why it is not."""
    try:
        environments.make(peer.environment)
        arguments = ["--row", row, "--task", str(file)]
        worker = Worker(peer.name, __file__, arguments, QUIET, environments.python_of(peer.environment))
    except (RuntimeError, subprocess.CalledProcessError) as error:
        return str(error)
    stack.callback(worker.close)
    return worker


def work(options: argparse.Namespace) -> None:
    """The worker's side."""
    answers = private_output()
    peer = next(p for p in ROWS[options.row[0]].peers if p.name == options.worker)
    contender = peer.contender(Task.load(options.task))
    serve(contender.work, contender.check, answers)


# --- printing ---------------------------------------------------------------------------------------------------------


def print_row(name: str, options: argparse.Namespace) -> None:
    row, lines = ROWS[name], []
    options.row_name = name
    for form in [f for f in row.forms if not options.form or f in options.form]:
        task = make_task(options, form)
        if not lines:
            print(f"\n**{row.title}** (`--row {name}`): {describe(task)}; {options.rounds} rounds, medians\n")
        base = None
        for peer, figures, check in run(row, task, options):
            if isinstance(figures, str):
                lines.append([form, peer.name, "-", "-", "-", "-", figures])
                continue
            times = peer.times(task) if peer.times else 1
            busy = times * median_of(figures)
            base = base or busy
            lines.append([
                form, peer.name, f"{busy:.2f}", f"{times * figures.wall:.2f}", f"{busy / base:.2f}",
                f"{figures.peak:.0f}", "; ".join(notes(figures, check, times)),
            ])  # fmt: skip
    table(["form", "", "processor s", "wall s", "x ours", "peak MB", "what came of it"], lines)
    if row.cannot:
        print(f"\n{row.cannot}.", flush=True)


def median_of(figures: Figures) -> float:
    """Processor seconds of a round; of generation, of the steered half of it."""
    return statistics.median(figures.own["steered"]) if "steered" in figures.own else figures.median


def notes(figures: Figures, check: dict[str, float], times: int) -> list[str]:
    found = [f"{name} {value:.3f}".removesuffix(".000") for name, value in check.items()]
    if "steered" in figures.own:
        pairs = zip(figures.own["steered"], figures.own["unsteered"], strict=True)
        found.insert(0, f"{(statistics.median(a / b for a, b in pairs) - 1) * 100:+.1f}% over unsteered")
    if times > 1:
        found.insert(0, f"{times} passes; with a start-up each {times * (figures.median + figures.startup):.0f} s")
    return found


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=list(ROWS), help="rows; repeatable; all of them if not given")
    parser.add_argument("--form", action="append", choices=["vector", "lora", "local_weight"])
    parser.add_argument("--only", action="append", help="contenders by name; repeatable")
    parser.add_argument(
        "--here", action="store_true", help="leave out contenders that need an environment of their own"
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument(
        "--data", default=os.environ.get("EASYEDIT_SPLIT_DATA"),
        help="folder with powerseeking/ (default: EASYEDIT_SPLIT_DATA), or demo",
    )  # fmt: skip
    for name, value in {
        "layer": 15, "pairs": 16, "test-pairs": 8, "epochs": 2, "batch": 4, "points": 5, "prompts": 4, "tokens": 16,
        "rounds": 1,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    options = make_parser().parse_args()
    if options.worker:
        work(options)
        return
    print(machine(), flush=True)
    for name in options.row or ROWS:
        print_row(name, options)


if __name__ == "__main__":
    main()
