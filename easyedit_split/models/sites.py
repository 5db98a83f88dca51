"""Where a change is added: one affine map of one decoder block, or the block's output (paper, section 2.1).

A `Site` is a name. `resolve_site` finds the module behind it in a model: by the names that `architectures` knows, or by
a module path given by hand. Where an architecture fuses several projections into one module, the site is a set of that
module's output rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import SiteError
from .architectures import COMPONENTS as COMPONENTS
from .architectures import SHARED_EXPERT, fused_modules, fused_rows, module_names
from .parts import (
    decoder_layers,
    has_norm_after_mlp,
    hidden_size,
    is_linear,
    linear_shape,
    submodule,
    text_config,
    unwrap,
)


@dataclass(frozen=True)
class Site:
    """A place in the model: decoder block `layer` (from 0) and the `component` in it.

    `component` is one of `COMPONENTS`, or the path of any linear module relative to the block
    (`"feed_forward.w2"`). `"residual"` is the block's output: only a vector fits there.
    """

    layer: int
    component: str = "mlp.down_proj"

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.component}"


@dataclass(frozen=True)
class ResolvedSite:
    """A site found in a model.

    `module` is hooked. `rows` are the output features of `module` that belong to the site (None: all of them).
    `linear` is the module whose weights a merge edits: `module` itself, or, for `"residual"`, the last linear map
    whose output reaches the residual stream unchanged (None where a norm stands between, as in Gemma-2).
    """

    site: Site
    module: nn.Module
    linear: nn.Module | None
    rows: Tensor | None
    d_in: int
    d_out: int

    @property
    def is_residual(self) -> bool:
        return self.site.component == "residual"


def resolve_site(model: Any, site: Site) -> ResolvedSite:
    """Find `site` in `model`.

    Raises:
        SiteError: the layer is out of range, or the block has no such module; the message says what was looked for.
    """
    layers = decoder_layers(model)
    if not 0 <= site.layer < len(layers):
        raise SiteError(
            f"layer {site.layer} is out of range: {type(unwrap(model)).__name__} has layers 0 to {len(layers) - 1}"
        )
    block = layers[site.layer]
    if site.component == "residual":
        width = hidden_size(model)
        return ResolvedSite(site, block, _residual_linear(block), None, width, width)
    found = _find_linear(block, site.component, model)
    if found is None:
        raise SiteError(_not_found(block, site, text_config(model).model_type))
    module, rows = found
    d_in, d_out = linear_shape(module)
    return ResolvedSite(site, module, module, rows, d_in, d_out if rows is None else len(rows))


def _find_linear(block: nn.Module, component: str, model: Any) -> tuple[nn.Module, Tensor | None] | None:
    for path in module_names(component):
        module = submodule(block, path)
        if is_linear(module):
            return module, None
    config = text_config(model)
    for path, fused in fused_modules(component, config.model_type).items():
        module = submodule(block, path)
        if is_linear(module):
            return module, fused_rows(fused, component, linear_shape(module)[1], config)
    return None


def _residual_linear(block: nn.Module) -> nn.Module | None:
    if has_norm_after_mlp(block):
        return None
    return next((m for p in module_names("mlp.down_proj") if is_linear(m := submodule(block, p))), None)


def _not_found(block: nn.Module, site: Site, model_type: str) -> str:
    looked = [*module_names(site.component), *fused_modules(site.component, model_type)]
    linears = [name for name, module in block.named_modules() if is_linear(module)]
    experts = ""
    if site.component.startswith("mlp.") and any("experts" in name for name, _ in block.named_modules()):
        shared = f", {SHARED_EXPERT[-1]!r}" if any("shared" in name for name in linears) else ""
        experts = f" (its experts are one tensor, and each token passes a few of them: steer 'residual'{shared})"
    return (
        f"no linear module for {site.component!r} in block {site.layer} ({type(block).__name__}){experts}: "
        f"looked for {', '.join(looked)}; name one of its linear modules by hand, for example "
        f"Site({site.layer}, {(linears or ['mlp.w2'])[0]!r}); it has {', '.join(linears) or 'none'}"
    )
