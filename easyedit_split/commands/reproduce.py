"""`easyedit-split reproduce`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .common import overrides, print_table

if TYPE_CHECKING:
    from ..reproduce.cell import Task
    from ..reproduce.settings import GridSettings


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="a folder of hyper-parameter files, as hparams/demo")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CELLS", help="reviews, '*/split_*', …; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the cells that would run, and how long")
    parser.add_argument("--jobs", type=int, help="processes (default: the cores for the demo model, else 1)")
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="ray: cells on a Ray cluster")
    parser.add_argument("--address", help="the Ray cluster's address (default: start one on this machine)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the grid (seeds=[0,1] n_test=20)")


def run(arguments: argparse.Namespace) -> int:
    from ..reproduce.settings import grid_settings
    from ..storage.locks import folder_lock

    if arguments.jobs is not None and arguments.jobs < 1:
        raise ConfigError(f"--jobs {arguments.jobs} is out of range: give 1 or more")
    if arguments.address and arguments.engine != "ray":
        raise ConfigError(f"--address {arguments.address} is a Ray cluster's: say --engine ray as well")
    wrong = [v for v in arguments.settings if "=" not in v]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is not key=value: give one folder, then settings")
    settings = grid_settings(arguments.folder, overrides(arguments.settings))
    with nullcontext() if arguments.dry_run else folder_lock(settings.output):
        return _run(arguments, settings)


def _run(arguments: argparse.Namespace, settings: GridSettings) -> int:
    import torch

    from ..reproduce.output import write_outputs
    from ..reproduce.run import judge_cost, plan, run_tasks, time_needed

    elsewhere = arguments.engine == "ray" and not torch.cuda.is_available()
    found = plan(settings, arguments.only, "cpu" if elsewhere else None, arguments.dry_run)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{len(found.tasks)} cells, {len(found.to_run)} to run (the others are done and their inputs are the same)")
    cost = judge_cost(found.to_run)
    if cost:
        print(f"note: {cost}")
    jobs = arguments.jobs or (os.cpu_count() or 1 if settings.model == "demo" else 1)
    if arguments.dry_run:
        print(f"time: {time_needed(found, jobs)}")
        print_table(["cell", "state"], [[t.cell.key, "to run" if t in found.to_run else "done"] for t in found.tasks])
        return 0
    start = time.monotonic()
    engine = _ray(found.to_run, arguments.address) if arguments.engine == "ray" and found.to_run else None
    jobs = min(jobs, max(1, len(found.to_run)))
    failures = run_tasks(found.to_run, jobs, lambda text: print(text, flush=True), engine)
    for key, reason in failures.items():
        print(f"failed: {key}: {reason}")
    written = write_outputs(settings, found.tasks, found.notes)
    print(f"{(time.monotonic() - start) / 60:.1f} min -> {written.page}, {written.markdown}, {len(written.files)} more")
    return 1 if failures else 0


def _ray(tasks: Sequence[Task], address: str | None) -> Iterator[tuple[Task, str]]:
    from ..reproduce.engine_ray import finished_on_ray

    return finished_on_ray(tasks, address)
