"""One writer a folder: a lock that the system itself releases when its holder ends, however it ends."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ArtifactError

_NAME = ".lock"
_LOOK_EVERY = 0.05  # seconds
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # a file system without locks, as some shared ones
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # see `files.write_atomically`


@contextmanager
def folder_lock(folder: str | Path, wait: bool = False) -> Iterator[None]:
    """Hold `folder` (created where missing) for writing; what killed writers left half-written there is removed.

    On a system or file system without locks nobody is kept out, and nothing is removed.

    Args:
        wait: for another process that holds it, instead of refusing.

    Raises:
        ArtifactError: another process holds it, or it cannot be written.
    """
    path = Path(folder) / _NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, held = _locked(path, wait)
    except OSError as error:
        reason = error.strerror or error
        raise ArtifactError(f"{folder} cannot be written ({reason}): choose another folder") from error
    try:
        if held:  # only then are half-written files nobody's
            for leftover in path.parent.iterdir():
                if _TEMPORARY.fullmatch(leftover.name) and leftover.is_file():
                    leftover.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: Path, wait: bool) -> tuple[int, bool]:
    """The open lock file, and whether it is locked: where locks do not exist it stops nobody."""
    try:
        import fcntl
    except ImportError:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666), False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor, False
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            if wait:
                time.sleep(_LOOK_EVERY)
                continue
            raise ArtifactError(
                f"another process is writing to {path.parent}: wait for it, or choose another output folder"
            ) from None
        # the holder before may have removed the file between our open and our lock: then it is no longer the lock
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor, True
        os.close(descriptor)
