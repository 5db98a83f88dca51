"""Where a change is added: one affine map of one decoder block, or the block's output (paper, section 2.1).

A `Site` is a name, `Sites` are several that are steered together. `resolve_site` finds the module behind a name: by the
names that `architectures` knows, or by a module path given by hand. Where an architecture fuses several projections
into one module, the site is a set of that module's output rows.
"""

from __future__ import annotations

from collections.abc import Iterable
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

    @property
    def sites(self) -> tuple[Site, ...]:
        """This one alone; of `Sites`, all."""
        return (self,)

    @property
    def layers(self) -> str:
        """The layer's number as files name it; of `Sites`, ranges: `12-14_16`."""
        return str(self.layer)


@dataclass(frozen=True)
class Sites:
    """Two or more places of one model that are steered together, the lowest layer first: made by `sites_of`.

    Raises:
        SiteError: fewer, not in order, or one given twice.
    """

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        order = sorted(set(self.sites), key=_place)
        if len(order) < 2 or tuple(order) != self.sites:
            given = "; ".join(map(str, self.sites)) or "none"
            raise SiteError(f"sites {given}: give two or more, each once, the lowest layer first")

    def __str__(self) -> str:
        """`layers 12-14 and 16, mlp.down_proj`; places of several components are named apart."""
        found = []
        for component in dict.fromkeys(s.component for s in self.sites):
            runs = _runs([s.layer for s in self.sites if s.component == component])
            plural = "s" if len(runs) > 1 or "-" in runs[0] else ""
            found.append(f"layer{plural} {' and '.join(runs)}, {component}")
        return "; ".join(found)

    @property
    def layers(self) -> str:
        return "_".join(_runs(sorted({s.layer for s in self.sites})))

    @property
    def layer(self) -> int:
        """Raises `SiteError`: there are several."""
        raise SiteError(f"{self} are several places, and here is room for one: take one of the change's parts")

    @property
    def component(self) -> str:
        """The one that all of them have.

        Raises:
            SiteError: there are several.
        """
        if len({s.component for s in self.sites}) > 1:
            raise SiteError(f"{self} are several components, and here is room for one: take one of the change's parts")
        return self.sites[0].component


def sites_of(given: Site | Sites | Iterable[Site]) -> Site | Sites:
    """One site as it is, several as `Sites`, in order.

    Raises:
        SiteError: none, or one given twice.
    """
    if isinstance(given, (Site, Sites)):
        return given
    found = sorted(given, key=_place)
    return found[0] if len(found) == 1 else Sites(tuple(found))


def _place(site: Site) -> tuple[int, str]:
    return site.layer, site.component


def _runs(layers: list[int]) -> list[str]:
    """Ascending numbers with neighbours drawn together: `12-14`, `16`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


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
