"""Running a grid: what is missing or whose inputs changed, in one or several processes, with an estimate."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ConfigError, SteeringError
from ..models.guards import memory_errors_named
from ..models.identity import model_fingerprint
from .cell import Task, grid_model, run_cell
from .grid import dataset_cells, hparams_files, hyperparameters_of, inputs_hash, may_hold, selected
from .judging import estimate, verdict_stands
from .prepare import Prepared, prepare
from .results import read_result
from .settings import GridSettings

Say = Callable[[str], object]
LOOK_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Plan:
    """Every chosen cell as a task, those that have to run, and notes for the user (data sets that were left out)."""

    tasks: list[Task]
    to_run: list[Task]
    notes: list[str] = field(default_factory=list)


def plan(settings: GridSettings, only: Sequence[str] = (), device: str | None = None, dry: bool = False) -> Plan:
    """Read the data and the files, and find out which cells have to run.

    A data set whose data are nowhere is left out with a note, unless it is the only one.

    Args:
        device: where the model is loaded for this, if not where the cells will run.
        dry: nothing is written, and the model is loaded only where there are results that it may have made.

    Raises:
        ConfigError, DataError: nothing can be run; see the modules.
    """
    here = replace(settings, device=device, device_map=None) if device else settings
    results = any((settings.output / "cells").rglob("result.json"))
    fingerprint = "" if dry and not results else model_fingerprint(grid_model(here)[0])
    cells, data, notes = [], {}, []
    files = hparams_files(settings)
    wanted = {name: paths for name, paths in files.items() if may_hold(name, only)} or files
    for dataset, paths in wanted.items():
        try:
            prepared = prepare(settings, dataset, paths, lambda: grid_model(here), dry, results)
        except SteeringError as error:
            notes.append(f"{dataset} is left out: {error}")
            continue
        data.update({(dataset, concept): part for concept, part in prepared.items()})
        cells += dataset_cells(settings, dataset, paths, list(prepared))
    if not cells:
        raise ConfigError("; ".join(notes))
    tasks = []
    for cell in selected(cells, only):
        part: Prepared = data[cell.dataset, cell.concept_id]
        hp = hyperparameters_of(cell, settings.layers)
        tasks.append(Task(cell, settings, part, inputs_hash(cell, hp, settings, part, fingerprint), hp))
    return Plan(tasks, [task for task in tasks if not is_done(task)], notes)


def is_done(task: Task) -> bool:
    """Whether the cell's result is there, of these inputs, and judged."""
    result = read_result(task.result_file)
    if result is None or result["inputs"] != task.inputs:
        return False
    return verdict_stands(task.settings, task.cell.dataset, result)


def time_needed(found: Plan, jobs: int) -> str:
    """How long the cells to run will take, by the cells of the same kind that are done; in words."""
    seconds: dict[str, list[float]] = {}
    for task in found.tasks:
        result = read_result(task.result_file)
        if result is not None and task not in found.to_run and isinstance(result.get("seconds"), (int, float)):
            seconds.setdefault(task.cell.form, []).append(float(result["seconds"]))
    known = [s for values in seconds.values() for s in values]
    if not found.to_run:
        return "nothing is to run"
    if not known:
        return "the time cannot be told before a cell is done: run one with --only, and ask again"
    mean = {form: sum(values) / len(values) for form, values in seconds.items()}
    total = sum(mean.get(task.cell.form, sum(known) / len(known)) for task in found.to_run)
    return f"about {_minutes(total / jobs)}, by the {len(known)} cells that are done ({jobs} at once)"


def judge_cost(tasks: Sequence[Task]) -> str:
    """What judging the tasks will cost at most, in words; empty where nothing is asked of an endpoint."""
    requests, dollars, known = 0, 0.0, True
    for task in tasks:
        found = estimate(task.settings, task.cell.dataset, task.data)
        if found is None or not found.requests:
            continue
        requests += found.requests
        known = known and found.dollars is not None
        dollars += found.dollars or 0.0
    if not requests:
        return ""
    return f"the judge will be asked up to {requests} times, " + (
        f"for up to {dollars:.2f} US dollars" if known else "at a price this package does not know"
    )


def run_tasks(
    tasks: Sequence[Task], jobs: int, say: Say, finished: Iterable[tuple[Task, str]] | None = None
) -> dict[str, str]:
    """Run tasks in `jobs` processes (1: in this one), or take them from an engine that yields them `finished`.

    Returns the failures: cell key -> what went wrong.

    A cell that cannot be run is reported and left; the others go on.
    """
    failures: dict[str, str] = {}
    start = time.monotonic()
    for done, (task, error) in enumerate(finished or _finished(tasks, jobs), 1):
        if error:
            failures[task.cell.key] = error
        spent = time.monotonic() - start
        left = spent / done * (len(tasks) - done)
        outcome = f"failed: {error}" if error else "done"
        say(f"[{done}/{len(tasks)}] {task.cell.key} {outcome}; {_minutes(spent)} spent, about {_minutes(left)} left")
    return failures


def _finished(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, str]]:
    if jobs == 1:
        for task in tasks:
            yield task, _outcome(task)
        return
    import torch

    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(threads, os.getpid())) as pool:
        futures: dict[Any, Task] = {pool.submit(_outcome, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome(task: Task) -> str:
    """Empty, or what went wrong."""
    try:
        with memory_errors_named():
            run_cell(task)
    except SteeringError as error:
        return str(error)
    return ""


def _start_worker(threads: int, parent: int) -> None:
    """A worker ends with the run: a pool whose parent is killed would go on computing cells that nobody waits for."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os._exit(1)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
