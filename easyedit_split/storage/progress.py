"""Taking up unfinished work from a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ArtifactError, ProgressError


@contextmanager
def taken_up() -> Iterator[None]:
    """Inside, a file that is broken or of another run is a `ProgressError`: deleting it mends that, and a full disk,
    where it does not, has another error."""
    try:
        yield
    except ArtifactError as error:
        raise ProgressError(str(error)) from error
