"""The strengths of one forward step: for every artifact, m1 and m2 of each token of the batch.

The buffers are allocated once and filled before each step, so that a captured graph finds them where they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Span = tuple[list[list[Any]] | None, int, int]  # a request's changes (packed), its first position here, its tokens


class Strengths:
    """`values` is `(artifacts, 2, tokens)` float32 on the device: m1 and m2, zero where a token is not steered.

    `steered` says, on the host, which tokens an artifact steers in this step (None: every one); artifacts that steer
    none are not in it. `tokens` is the step's number of tokens.
    """

    def __init__(self, artifacts: int, tokens: int, device: torch.device) -> None:
        host = torch.zeros(artifacts, 2, tokens)
        self.values = host if device.type == "cpu" else torch.zeros_like(host, device=device)
        self._host, self._written = host.numpy(), 0
        self.steered: dict[int, Tensor | None] = {}
        self.tokens = 0

    def fill(self, spans: Iterable[Span]) -> None:
        """Set the strengths of the step whose tokens are those of `spans`, in this order."""
        before, self._written = self._written, 0
        self._host[:, :, :before] = 0.0
        artifacts, end = set(), 0
        for changes, position, count in spans:
            begin, end = end, end + count
            for artifact, _, m1, m2, start in changes or ():
                first = begin + max(0, start - position)
                if first < end:
                    self._host[artifact, 0, first:end] = m1
                    self._host[artifact, 1, first:end] = m2
                    artifacts.add(artifact)
                    self._written = end
        self.tokens = end
        self.steered = {artifact: self._tokens_of(artifact) for artifact in artifacts}
        width = max(before, self._written)
        if width and not self.values.is_cpu:  # from memory of its own, as the device may read it in a later step
            step = torch.from_numpy(self._host[:, :, :width].copy()).pin_memory()
            self.values[:, :, :width].copy_(step, non_blocking=True)

    def _tokens_of(self, artifact: int) -> Tensor | None:
        found = np.flatnonzero(self._host[artifact, :, : self.tokens].any(axis=0))
        return None if len(found) == self.tokens else torch.from_numpy(found)
