"""What every reader of a change may rely on: the parts of an artifact, without how it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..models.sites import ResolvedSite, Site, Sites
from .calibration import Calibration
from .forms import LinearDelta
from .positions import Positions


class Change(Protocol):
    """A `delta` at a `site`, steering `positions`; `model` and `origin` say what it was made for, and how. `parts`: the
    changes at its single sites."""

    @property
    def delta(self) -> LinearDelta: ...
    @property
    def site(self) -> Site | Sites: ...
    @property
    def parts(self) -> Sequence[Change]: ...
    @property
    def positions(self) -> Positions: ...
    @property
    def model(self) -> dict[str, Any]: ...
    @property
    def origin(self) -> dict[str, Any]: ...
    @property
    def calibration(self) -> Calibration | None: ...
    @property
    def form(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def acts_at_block_output(self) -> bool:
        """Whether this is a vector that may as well be added to the block's output."""
        ...

    def resolve(self, model: Any, any_model: bool = False) -> ResolvedSite:
        """The one site in `model`; ArtifactError where the change was made for another one."""
        ...
