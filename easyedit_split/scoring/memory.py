"""Where many hidden states can lie: on the device, in main memory, or in a file that is mapped into it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from typing import IO

import torch
from torch import Tensor

from ..errors import ConfigError

DEVICE_SHARE, HOST_BYTES = 0.25, 8 << 30
_ZEROS = bytes(1 << 20)


def memory_for(device: torch.device) -> float:
    """Bytes that stored states may take of a device."""
    return DEVICE_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else HOST_BYTES


def zeros_somewhere(rows: int, like: Tensor) -> Tensor:
    """`(rows, d)` zeros for states like `like` `(..., d)`: on its device, else in main memory, else in a file.

    Raises:
        ConfigError: there is no room anywhere.
    """
    shape = (rows, like.shape[-1])
    needed = shape[0] * shape[1] * like.element_size()
    if like.is_cuda and needed <= memory_for(like.device):
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    if needed <= HOST_BYTES:
        return torch.zeros(shape, dtype=like.dtype)
    with tempfile.NamedTemporaryFile(prefix="easyedit_split_") as file:  # the mapping outlives its name
        try:
            _reserve(file, needed)
        except OSError as error:
            raise ConfigError(
                f"{needed / 1e9:.1f} GB of hidden states fit neither in memory nor in {tempfile.gettempdir()} "
                f"({error.strerror}): use fewer pairs, or set TMPDIR to a folder with room"
            ) from None
        return torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=like.dtype).view(shape)


def _reserve(file: IO[bytes], size: int) -> None:
    """Take `size` bytes of the disk now: one that fills up later would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    if size > shutil.disk_usage(file.name).free:  # macOS
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for start in range(0, size, len(_ZEROS)):
        file.write(_ZEROS[: size - start])
    file.flush()
