"""Training progress on disk: parameters, AdamW's state and the step, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..changes.forms import LinearDelta
from ..errors import ArtifactError
from ..storage.files import write_tensors
from ..storage.progress import read_progress

SECONDS_BETWEEN = 20.0
_STATE = ("exp_avg", "exp_avg_sq", "step")


class Checkpoint:
    """Progress of one run, which `run` (its origin: objective, settings, pairs; the model's weights) identifies.

    Written at most every `seconds`, and at the end. `overwrite`: that of another run is as good as none.
    """

    def __init__(
        self,
        path: str | Path,
        delta: LinearDelta,
        optimizer: torch.optim.Optimizer,
        run: dict[str, Any],
        seconds: float = SECONDS_BETWEEN,
        overwrite: bool = False,
    ) -> None:
        self.overwrite = overwrite
        self.path, self.delta, self.optimizer, self.seconds = Path(path), delta, optimizer, seconds
        self.run = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
        self._written = time.monotonic()

    def restore(self) -> int:
        """Take up the run where the file left it; returns the next step (0 where there is no file).

        Raises:
            ArtifactError: the file is broken, or of another run.
        """
        kept = read_progress(self.path, self.run, "run (settings, pairs or the model's weights differ)", self.overwrite)
        if kept is None:
            return 0
        tensors, header = kept
        try:
            step = int(header["step"])
            state = {name: {k: tensors[f"{k}.{name}"] for k in _STATE} for name, _ in self._parameters()}
            with torch.no_grad():
                for name, parameter in self._parameters():
                    parameter.copy_(tensors[name])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"{self.path} is broken ({error}): delete it to start again") from None
        for name, parameter in self._parameters():
            moved = {k: v if k == "step" else v.to(parameter.device) for k, v in state[name].items()}
            self.optimizer.state[parameter] = moved
        return step

    def step_done(self, step: int, last: bool) -> None:
        """Write if it is time; `step` is the next one."""
        if last or time.monotonic() - self._written >= self.seconds:
            self.write(step)

    def write(self, step: int) -> None:
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters():
            tensors[name] = parameter
            tensors.update({f"{k}.{name}": self.optimizer.state[parameter][k] for k in _STATE})
        write_tensors(self.path, tensors, {"run": self.run, "step": step})
        self._written = time.monotonic()

    def _parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return list(self.delta.named_parameters())
