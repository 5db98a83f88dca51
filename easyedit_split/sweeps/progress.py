"""A sweep's finished batches on disk, so that a sweep that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArtifactError
from ..storage.files import write_tensors
from ..storage.progress import read_progress

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact


class SweepProgress:
    """Losses of the first batches of one sweep, which `run` (see `sweep_identity`) identifies.

    `path` None: nothing is kept. Written at most every `seconds`; deleted by whoever saves the finished table.
    `overwrite`: what is of another sweep is as good as none.
    """

    def __init__(self, path: str | Path | None, run: str, seconds: float, overwrite: bool = False) -> None:
        self.path, self.run, self.seconds = Path(path) if path else None, run, seconds
        self.overwrite = overwrite
        self._written = time.monotonic()

    def restore(self, losses: np.ndarray, batches: Sequence[Any]) -> int:
        """Fill `losses` `(2, M, N)` with what is finished; returns how many of `batches` that is.

        Raises:
            ArtifactError: the file is broken, or of another sweep.
        """
        import torch

        of = "sweep (its change, pairs, strengths or the model's weights differ)"
        kept = read_progress(self.path, self.run, of, self.overwrite) if self.path else None
        if kept is None:
            return 0
        tensors, header = kept
        done = header.get("batches")
        if not isinstance(done, int) or not 0 < done <= len(batches):
            raise ArtifactError(f"{self.path} is broken ({done!r} batches): delete it to start again")
        cells = torch.cat(list(batches[:done]))
        values = tensors.get("losses")
        if values is None or values.shape != (2, len(cells)) or values.dtype != torch.float64:
            raise ArtifactError(f"{self.path} is broken (its losses have another shape): delete it to start again")
        losses[:, cells[:, 0], cells[:, 1]] = values.numpy()
        return done

    def batch_done(self, losses: np.ndarray, batches: Sequence[Any], done: int) -> None:
        """Write the first `done` batches, if it is time or they are all."""
        import torch

        due = time.monotonic() - self._written >= self.seconds or done == len(batches)
        if self.path is None or not due:
            return
        cells = torch.cat(list(batches[:done]))
        values = torch.from_numpy(np.ascontiguousarray(losses[:, cells[:, 0], cells[:, 1]]))
        write_tensors(self.path, {"losses": values}, {"run": self.run, "batches": done})
        self._written = time.monotonic()


def sweep_identity(
    artifact: SteeringArtifact, model: Any, encoded: Sequence[Any], grid: np.ndarray, described: dict[str, Any]
) -> str:
    """A hash of everything a sweep's losses depend on."""
    from ..models.parts import unwrap

    inner = unwrap(model)
    digest = hashlib.sha256()
    for name, tensor in sorted(artifact.delta.tensors().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    place = [artifact.form, str(artifact.site), str(artifact.positions), str(inner.dtype), inner.device.type, described]
    digest.update(json.dumps(place, sort_keys=True).encode())
    digest.update(json.dumps([[e.prompt, e.matching, e.not_matching] for e in encoded]).encode())
    digest.update(grid.tobytes())
    return digest.hexdigest()
