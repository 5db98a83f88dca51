"""What a change to EasyEdit is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import HostError

TRAINERS = ("steer/trainer/SFTModelTrainer.py", "steer/trainer/PreferenceModelTrainer.py")


class NotNeeded(HostError):
    """The checkout has the change already, or never had the fault."""


@dataclass(frozen=True)
class Patch:
    """One pull request.

    `apply` edits the files below a checkout's root, or raises `Refused` or `NotNeeded`.
    `defects`: tests of `tests/host/defects.py` that hold before and no longer after; `cures`: those of
    `tests/host/cures.py` that hold after and not before.
    """

    number: int
    name: str
    title: str
    summary: str
    apply: Callable[[Path], None]
    cures: tuple[str, ...]
    defects: tuple[str, ...] = ()

    @property
    def branch(self) -> str:
        return f"split-{self.number:02d}-{self.name}"

    @property
    def message(self) -> str:
        return f"{self.title}\n\n{self.summary}\n"
