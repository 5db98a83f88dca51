"""What the harnesses share: a change, named as their command lines name things, attached to their model for good."""

from __future__ import annotations

from typing import Any

from ..changes.artifact import load
from ..changes.attach import Handle
from ..errors import ConfigError
from ..models.protocols import CausalLM


class Steering:
    """A change on a model, and what a table of results should say of it.

    Args:
        artifact: a folder, or a repository of the hub; None for the unsteered model.
        m: the strength; None for the one that the change keeps.

    Raises:
        ConfigError: a strength without a change, or none at all.
        ArtifactError: no such change, or one for another model.
    """

    def __init__(self, model: CausalLM, artifact: str | None, m: float | None) -> None:
        self.handle: Handle | None = None
        self._name = artifact
        if artifact is not None:
            self._change = load(artifact)
            self.handle = self._change.attach(model, m)
        elif m is not None:
            raise ConfigError(f"m = {m} without artifact: name the change too, or leave m out")

    def about(self) -> dict[str, Any]:
        """The change and the strength that it has now; empty without one."""
        if self.handle is None:
            return {}
        kept, strength = self._change, self.handle.strength
        return {
            "artifact": self._name, "id": kept.id, "form": kept.form, "site": str(kept.site),
            "m1": strength.m1, "m2": strength.m2,
        }  # fmt: skip
