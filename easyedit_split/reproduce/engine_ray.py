"""Cells of a grid as Ray tasks, on this machine or on a cluster.

A cell needs one processor, and one GPU where the grid's device is CUDA. It is computed in a temporary folder of
whichever node takes it and its files travel back, so that nodes share no disk; they need this package and the model. A
cell whose node or process dies is run again elsewhere. An endpoint is asked by the driver, where the keys are.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..errors import ConfigError, SteeringError
from ..models.guards import memory_errors_named
from ..storage.files import write_bytes
from .cell import Task, run_cell
from .judging import judge_of, judged_offline
from .results import write_result

RETRIES = 3
Answer = tuple[str, dict[str, bytes]]


def finished_on_ray(tasks: Sequence[Task], address: str | None = None) -> Iterator[tuple[Task, str]]:
    """Run tasks on the cluster at `address` (None: one on this machine); yields each once, as it ends, with what went
    wrong or an empty text.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at `address`, or a cell's strength would be chosen by a
            judge whose keys the nodes do not have.
    """
    for task in tasks:
        settings, dataset = task.settings, task.cell.dataset
        if settings.strength == "grid" and not judged_offline(settings, dataset) and judge_of(settings, dataset):
            raise ConfigError(
                f"strength=grid asks an endpoint about {dataset}, whose keys stay here: use --engine local"
            )
    try:
        import ray
    except ImportError:
        raise ConfigError("--engine ray needs Ray: pip install 'easyedit-split[ray]'") from None
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address or "local", include_dashboard=None if address else False, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(f"no Ray cluster at {address!r} ({reason}): check --address") from error
    try:
        engine: Any = ray
        remote = engine.remote(max_retries=RETRIES, retry_exceptions=[OSError])(compute)
        waiting: dict[Any, Task] = {}
        for task in tasks:
            gpus = 1 if task.settings.device.startswith("cuda") else 0
            waiting[remote.options(num_cpus=1, num_gpus=gpus).remote(task, _kept(task))] = task
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            task = waiting.pop(done)
            yield task, _received(ray, done, task)
    finally:
        if started:
            ray.shutdown()


def compute(task: Task, kept: bytes) -> Answer:
    """On a node: run a cell's numbers. Returns what went wrong, and the cell's files by their relative paths."""
    with tempfile.TemporaryDirectory(prefix="easyedit_split_") as name:
        here = replace(task, settings=replace(task.settings, output_dir=name, judge="none"))
        if kept:
            here.folder.mkdir(parents=True)
            here.result_file.write_bytes(kept)
        try:
            with memory_errors_named():
                run_cell(here)
        except SteeringError as error:
            return str(error), {}
        files = sorted(p for p in here.folder.rglob("*") if p.is_file())
        return "", {str(p.relative_to(here.folder)): p.read_bytes() for p in files}


def _kept(task: Task) -> bytes:
    """The result that is there already; nothing without one."""
    return task.result_file.read_bytes() if task.result_file.is_file() else b""


def _received(ray: Any, done: Any, task: Task) -> str:
    """Write a cell's files, its result last, and judge it."""
    try:
        error, files = ray.get(done)
        if error:
            return error
        result = {**json.loads(files.pop(task.result_file.name)), "cell": asdict(task.cell)}
        for name, content in files.items():
            write_bytes(task.folder / name, content)
        write_result(task.result_file, result)
        run_cell(task)
    except SteeringError as failure:
        return str(failure)
    except ray.exceptions.RayError as failure:
        return f"it could not be run ({str(failure).strip().splitlines()[-1]})"
    return ""
