"""The names by which adapters call modules, and the sites they are.

An adapter names modules by their path in the whole model (`model.layers.14.mlp.down_proj`); a site names a block and a
component. With the model at hand the path is looked up; without it, the layout of known architectures gives it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .errors import ArtifactError, ConfigError
from .merge import mergeable_linear
from .sites import linear_shape, unwrap

if TYPE_CHECKING:
    from .artifact import SteeringArtifact
    from .sites import Site

# architecture -> path of its blocks, and the component names that differ from Llama's (None: part of a fused module)
_LLAMA: tuple[str, dict[str, str | None]] = ("model.layers", {})
_FUSED_PARTS = ("mlp.gate_proj", "mlp.up_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_LAYOUTS: dict[str, tuple[str, dict[str, str | None]]] = {
    **dict.fromkeys(("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text"), _LLAMA),
    "phi3": ("model.layers", dict.fromkeys(_FUSED_PARTS)),
    "gpt2": (
        "transformer.h",
        {
            **dict.fromkeys(_FUSED_PARTS),
            "mlp.down_proj": "mlp.c_proj", "mlp.up_proj": "mlp.c_fc", "self_attn.o_proj": "attn.c_proj",
        },
    ),
    "gpt_neox": (
        "gpt_neox.layers",
        {
            **dict.fromkeys(_FUSED_PARTS), "mlp.down_proj": "mlp.dense_4h_to_h",
            "mlp.up_proj": "mlp.dense_h_to_4h", "self_attn.o_proj": "attention.dense",
        },
    ),
}  # fmt: skip
_COMPONENT_OF = {other: name for _, names in _LAYOUTS.values() for name, other in names.items() if other is not None}
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


def find_target(artifact: SteeringArtifact, model: Any = None) -> Target:
    """The module of `artifact`'s site.

    Raises:
        ConfigError: without a model, for an architecture or a site whose path is not known.
        NotMergeableError: no linear map carries the site, or it is quantised or wrapped.
    """
    if model is not None:
        linear = mergeable_linear(artifact.resolve(model))
        path = next(name for name, module in unwrap(model).named_modules() if module is linear)
        d_in, d_out = linear_shape(linear)
        rows = artifact.resolve(model).rows
        return Target(path, None if rows is None else rows.cpu(), d_in, d_out, hasattr(linear, "nx"))
    architecture = artifact.model.get("architecture")
    blocks, names = _LAYOUTS.get(str(architecture), (None, {}))
    component = artifact.site.component
    name = names.get(component, component)
    if blocks is None or name is None or component == "residual":
        raise ConfigError(f"the module of {artifact.site} in {architecture or 'this model'} is not known: pass model=")
    return Target(f"{blocks}.{artifact.site.layer}.{name}", fan_in_fan_out=architecture == "gpt2")


def artifact_site(module: str, source: Path) -> Site:
    """The site that a module path means.

    Raises:
        ArtifactError: the module is not inside a decoder block.
    """
    from .sites import Site

    found = _PATH.fullmatch(module)
    if found is None:
        raise ArtifactError(
            f"{source} changes {module!r}, which is not in a decoder block: merge that adapter with PEFT"
        )
    return Site(int(found[1]), _COMPONENT_OF.get(found[2], found[2]))
