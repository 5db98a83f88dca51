"""Helpers of the crash tests: commands in processes that start fast, killed with SIGKILL at seeded moments."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN = ["train", "demo/reviews/split_vector", "train_data=demo:reviews", "n_epochs=2", "layers=[2,3]"]
SWEEP = ["sweep", "demo/reviews/split_vector", "test_data=demo:reviews", "max_num_of_examples=30", "layers=[2]"]
EAGER = ["model_name_or_path=demo", "--checkpoint-seconds", "0"]


def _command(arguments: list[str], log: str, limit: int | None) -> None:
    """In the child: one command line, its output in a file."""
    import torch

    from easyedit_split.cli import main

    torch.set_num_threads(1)
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with Path(log).open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = main(arguments)
    os._exit(status)


@dataclass
class Runner:
    """Starts command lines in children of one server that has imported everything already."""

    context: Any
    log: Path

    def start(self, arguments: list[str], limit: int | None = None) -> Any:
        process = self.context.Process(target=_command, args=(arguments, str(self.log), limit))
        process.start()
        return process

    def finish(self, arguments: list[str], limit: int | None = None) -> int:
        """Exit status of an uninterrupted run; what it printed is in `log`."""
        self.log.write_text("")
        process = self.start(arguments, limit)
        process.join()
        return process.exitcode

    def seconds(self, arguments: list[str]) -> float:
        start = time.monotonic()
        assert self.finish(arguments) == 0, self.log.read_text()
        return time.monotonic() - start


def runner(folder: Path) -> Runner:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crash_preload"])
    # the server must find the package and this folder, whatever the tests were started with
    places = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*places, *os.environ.get("PYTHONPATH", "").split(":")]))
    sys.path[:0] = [p for p in places if p not in sys.path]
    return Runner(context, folder / "log")


def kill_many(
    runs: Runner, arguments: list[str], times: int, seed: int, seconds: float, afresh: Callable[[], None],
    check: Callable[[], None],
) -> tuple[int, int]:  # fmt: skip
    """Start, kill at a random moment, look at what is on disk, start again; at last let it finish.

    Returns how many were killed while they ran, and how often the run had been finished before its kill came (then it
    starts afresh).
    """
    chance = random.Random(seed)
    killed = finished = 0
    while killed < times:
        process = runs.start(arguments)
        process.join(chance.uniform(0.05, 0.6) * seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
        else:
            assert process.exitcode == 0, runs.log.read_text()
            finished += 1
            afresh()
        check()
    assert runs.finish(arguments) == 0, runs.log.read_text()
    return killed, finished
