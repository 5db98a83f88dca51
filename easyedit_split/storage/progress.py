"""Taking up unfinished work from a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, ProgressError
from .files import read_tensors


def read_progress(path: Path, run: str, of: str, overwrite: bool) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Tensors and header of a file of progress; None where there is none to go on from.

    Args:
        run: the hash of everything that the work depends on, which the header must name.
        of: what it is and in what another one differs, for the sentence.
        overwrite: what is of another run is as good as none.

    Raises:
        ArtifactError: the file is broken, or of another run.
    """
    if not path.exists():
        return None
    tensors, header = read_tensors(path)
    if header.get("run") == run:
        return tensors, header
    if overwrite:
        return None
    raise ArtifactError(f"{path} is of another {of}: choose another output_dir, or set overwrite=true")


@contextmanager
def taken_up() -> Iterator[None]:
    """Inside, a file that is broken or of another run is a `ProgressError`: deleting it mends that, and a full disk,
    where it does not, has another error."""
    try:
        yield
    except ArtifactError as error:
        raise ProgressError(str(error)) from error
