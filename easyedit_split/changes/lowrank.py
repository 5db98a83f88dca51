"""A matrix as a product of two thin ones, by singular value decomposition (Eckart and Young: the best of its rank)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError


@dataclass(frozen=True)
class LowRank:
    """`B A`, `B` `(d_out, r)`, `A` `(r, d_in)`; its Frobenius error relative to the matrix, and the energy it keeps."""

    B: Tensor
    A: Tensor
    relative_error: float
    energy: float

    @property
    def rank(self) -> int:
        return len(self.A)


def factorised(matrix: Tensor, rank: int | None = None, energy: float | None = None) -> LowRank:
    """The best approximation of `matrix` `(d_out, d_in)` of a rank, or of the lowest rank that keeps an energy share.

    Energy is the sum of squared singular values. The singular values are shared evenly by the two factors.

    Raises:
        ConfigError: a rank or energy out of range.
    """
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    squares = s.square()
    if rank is None:
        rank = _rank_for(squares, energy)
    if not 1 <= rank <= len(s):
        raise ConfigError(f"rank {rank} is out of range for a {len(u)} x {vh.shape[1]} map: choose 1 to {len(s)}")
    root = s[:rank].sqrt()
    total = float(squares.sum())
    lost = float(squares[rank:].sum()) / total if total else 0.0
    return LowRank((u[:, :rank] * root).float(), (root[:, None] * vh[:rank]).float(), lost**0.5, 1.0 - lost)


def _rank_for(squares: Tensor, energy: float | None) -> int:
    if energy is None or not 0 < energy <= 1:
        raise ConfigError(f"energy = {energy} is out of range: give a share above 0, up to 1")
    # summed from the smallest up: what is lost is then exact even where the share kept rounds to 1
    lost = squares.flip(0).cumsum(0).flip(0)
    allowed = (1 - energy) * lost[0]
    return max(1, int((lost > allowed).sum()))
