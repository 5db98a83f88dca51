"""The names by which adapters call modules, and the sites they are.

An adapter names modules by their path in the whole model (`model.layers.14.mlp.down_proj`); a site names a block and a
component. With the model at hand the path is looked up; without it, the layout of known architectures gives it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..changes.change import Change
from ..changes.merge import mergeable_linear
from ..errors import ArtifactError, ConfigError
from ..models.architectures import COMPONENTS, architecture_of, component_of
from ..models.parts import linear_shape, unwrap
from ..models.sites import Site

_PATH = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d{1,9})\.((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Target:
    """A module of the model. `rows` are the site's output features in it (None: all `d_out` of them)."""

    module: str
    rows: Tensor | None = None
    d_in: int | None = None
    d_out: int | None = None
    fan_in_fan_out: bool = False

    def all_rows(self, values: Tensor) -> Tensor:
        """`values` `(site's d_out, ...)` placed among all output features of the module, zeros elsewhere."""
        if self.rows is None or self.d_out is None:
            return values
        return values.new_zeros(self.d_out, *values.shape[1:]).index_copy(0, self.rows, values)


def find_target(artifact: Change, model: Any = None) -> Target:
    """The module of the site of a change that has one.

    Raises:
        ConfigError: without a model, for an architecture or a site whose path is not known.
        NotMergeableError: no linear map carries the site, or it is quantised or wrapped.
    """
    if model is not None:
        resolved = artifact.resolve(model)
        linear = mergeable_linear(model, resolved)
        path = next(name for name, module in unwrap(model).named_modules() if module is linear)
        rows = None if resolved.rows is None else resolved.rows.cpu()
        return Target(path, rows, *linear_shape(linear), hasattr(linear, "nx"))
    kind, component = artifact.model.get("architecture"), artifact.site.component
    names = architecture_of(str(kind))
    known = names is not None and (component in names.linear or component not in COMPONENTS)
    if names is None or not known:
        raise ConfigError(f"the module of {artifact.site} in {kind or 'this model'} is not known: pass model=")
    module = f"{names.blocks}.{artifact.site.layer}.{names.linear.get(component, component)}"
    return Target(module, fan_in_fan_out=names.transposed)


def artifact_site(module: str, source: Path) -> Site:
    """The site that a module path means.

    Raises:
        ArtifactError: the module is not inside a decoder block.
    """
    found = _PATH.fullmatch(module)
    if found is None:
        raise ArtifactError(
            f"{source} changes {module!r}, which is not in a decoder block: merge that adapter with PEFT"
        )
    return Site(int(found[1]), component_of(found[2]))
