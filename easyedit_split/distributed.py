"""Several processes at one training or sweep, started by `accelerate launch -m easyedit_split …` or `torchrun`.

Every process holds the whole model and the whole plan; each scores its share of a batch's pairs, and sums are formed
over all of them, so that the result is that of one process up to rounding (dropout masks differ). With one process
every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def world() -> int:
    """Number of processes at work together."""
    group = torch.distributed
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return torch.distributed.get_rank() if world() > 1 else 0


@contextmanager
def processes(lock: Any) -> Iterator[None]:
    """Join the processes that a launcher started, if one did; inside, only the first prints and holds `lock`."""
    launched = all(name in os.environ for name in _LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1
    if not launched or world() > 1:
        with lock:
            yield
        return
    torch.distributed.init_process_group()  # gloo for CPU tensors, NCCL for CUDA ones
    try:
        if rank() == 0:
            with lock:
                yield
        else:
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield
    finally:
        torch.distributed.destroy_process_group()


def own_device(device: str | None) -> str | None:
    """`"cuda"` becomes this process's own GPU, as the launcher numbers them on each machine."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and world() > 1 else device


def shard() -> slice:
    """This process's rows of a batch."""
    return slice(rank(), None, world())


def everywhere(flag: bool) -> bool:
    """Whether `flag` holds in every process."""
    if world() == 1:
        return flag
    count = torch.tensor(int(flag))
    torch.distributed.all_reduce(count)
    return int(count) == world()


def reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by the sum over processes; a process without rows has none and adds zero."""
    if world() == 1:
        return
    chosen = list(parameters)
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in chosen])
    torch.distributed.all_reduce(flat)
    for parameter, part in zip(chosen, flat.split([p.numel() for p in chosen]), strict=True):
        parameter.grad = part.view_as(parameter)


def gather(mine: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Columns of all processes side by side: process r holds `(K, sizes[r])`, or nothing past the end of `sizes`."""
    if world() == 1:
        return mine
    whole = np.zeros((len(mine), sum(sizes)))
    start = sum(sizes[: rank()])
    whole[:, start : start + mine.shape[1]] = mine
    return total(torch.from_numpy(whole)).numpy()


def total(values: Tensor) -> Tensor:
    """The sum over processes, in place."""
    if world() > 1:
        torch.distributed.all_reduce(values)
    return values
