"""The change written into the weights: `W + m1 dW`, `b + m2 db` (paper, Eq. 4), and taken out again bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, NotMergeableError
from ..models.identity import mlp_adds_to_stream
from ..models.parts import linear_shape
from ..models.sites import ResolvedSite
from ..models.weights import merged
from .attach import handles_on
from .forms import LinearDelta, parts_of
from .positions import Positions
from .strength import Strength


@dataclass
class Edit:
    """What a merge did to one linear module. `added_bias`: the layer had none, so a saved checkpoint would drop it
    silently. `first`: the module held no merged change before."""

    module: Any
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    added_bias: bool
    first: bool = True

    def restore(self) -> None:
        """Put the weights back as they were before."""
        with torch.no_grad():
            for name, value in self.before.items():
                getattr(self.module, name).copy_(value)
        if self.added_bias:
            self.module.bias = None
        if self.first:
            merged.discard(self.module)


@dataclass
class Merge:
    """Edits of the linear modules that a change lies in, the lowest layer first."""

    edits: Sequence[Edit]
    done: bool = True

    @property
    def added_bias(self) -> bool:
        """Whether a layer had none, so that a saved checkpoint would drop it silently."""
        return any(edit.added_bias for edit in self.edits)

    @property
    def after(self) -> list[Tensor]:
        """Every tensor that was written."""
        return [tensor for edit in self.edits for tensor in edit.after.values()]

    def undo(self) -> None:
        """Restore the weights bit for bit. Idempotent.

        Raises:
            NotMergeableError: the weights were changed since (undo later merges first).
        """
        if not self.done:
            return
        # of several edits of one module, the last one's values are there now
        now = {(edit.module, name): value for edit in self.edits for name, value in edit.after.items()}
        for (module, name), value in now.items():
            if not torch.equal(getattr(module, name), value):
                raise NotMergeableError(f"{name} was changed after this merge: undo the later change first")
        for edit in reversed(self.edits):
            edit.restore()
        self.done = False


def merge(
    model: Any,
    delta: LinearDelta,
    sites: ResolvedSite | Sequence[ResolvedSite],
    positions: Positions,
    strength: Strength,
) -> Merge:
    """Edit the weights at `sites` in place, all of them or, after an error, none.

    Raises:
        NotMergeableError: the change steers only some positions, the layer is quantised or wrapped, no linear map
            carries a site (a residual vector behind a norm), or a result is not finite.
        ConfigError: a strength that is not one number, or for other layers than the change has.
    """
    several = (sites,) if isinstance(sites, ResolvedSite) else tuple(sites)
    strength.check_layers(site.site.layer for site in several)
    edits = []
    try:
        for part, site in zip(parts_of(delta), several, strict=True):
            edits.append(_edit(model, part, site, positions, strength))
    except BaseException:
        Merge(edits).undo()
        raise
    return Merge(edits)


def _edit(model: Any, delta: LinearDelta, site: ResolvedSite, positions: Positions, strength: Strength) -> Edit:
    m1, m2 = _scalars(strength, site.site.layer)
    if positions.rule != "all":
        raise NotMergeableError(
            f"the change steers positions {positions.rule!r} only, and weights act on every token: "
            "attach it instead, or train with positions='all'"
        )
    module = mergeable_linear(model, site)
    if module.weight.is_meta:
        raise NotMergeableError(
            f"the weights of {site.site} are offloaded: attach the change, or load without device_map"
        )
    after: dict[str, Tensor] = {}
    dw, db = delta.weight(), delta.bias_term()
    added = False
    if dw is not None and m1 != 0.0:
        after["weight"] = _plus(module.weight, dw, m1, site, transposed=hasattr(module, "nx"))
    if db is not None and m2 != 0.0:
        added = getattr(module, "bias", None) is None
        old = module.weight.new_zeros(linear_shape(module)[1]) if added else module.bias
        after["bias"] = _plus(old, db, m2, site)
    if not all(bool(torch.isfinite(t).all()) for t in after.values()):
        raise NotMergeableError(f"m = {(m1, m2)} overflows {module.weight.dtype}: use a smaller m")  # type: ignore[union-attr]
    return _apply(module, after, added)


def mergeable_linear(model: Any, site: ResolvedSite) -> Any:
    """The module of `model` whose weights carry the site.

    Raises:
        NotMergeableError: there is none, or its weights cannot be edited.
    """
    if site.linear is None:
        raise NotMergeableError(
            f"{site.site} lies behind a norm, so no weight carries it: attach it instead, or train at 'mlp.down_proj'"
        )
    if site.is_residual and not _reaches_stream(model, site.site.layer):
        raise NotMergeableError(
            f"{site.site}: the feed-forward's output is changed (by a norm or a multiplier) before it joins the "
            "stream, so no weight carries it: attach it instead, or train at 'mlp.down_proj'"
        )
    weight = getattr(site.linear, "weight", None)
    plain = isinstance(site.linear, nn.Linear) or hasattr(site.linear, "nx")
    if hasattr(site.linear, "base_layer"):
        raise NotMergeableError(
            f"{site.site} is wrapped by {type(site.linear).__name__}: merge or unload that adapter first"
        )
    if not plain or weight is None or not weight.is_floating_point() or type(weight).__name__ != "Parameter":
        raise NotMergeableError(
            f"{site.site} is a {type(site.linear).__name__} whose weights are quantised: "
            "attach the change instead, or load the model unquantised"
        )
    return site.linear


def _reaches_stream(model: Any, layer: int) -> bool:
    with ExitStack() as stack:
        for handle in handles_on(model):
            stack.enter_context(handle.silenced())
        return mlp_adds_to_stream(model, layer)


def _scalars(strength: Strength, layer: int) -> tuple[float, float]:
    m1, m2 = strength.at(layer)
    if isinstance(m1, Tensor) or isinstance(m2, Tensor):
        raise ConfigError("merging takes one number for m: weights are the same for every row of a batch")
    return m1, m2


def _plus(old: Tensor, change: Tensor, m: float, site: ResolvedSite, transposed: bool = False) -> Tensor:
    """`old + m * change` on the site's rows, computed in float32, in `old`'s dtype."""
    result = (old.detach().T if transposed else old.detach()).float().clone()
    change = m * change.detach().to(result.device, torch.float32)
    if site.rows is None:
        result += change
    else:
        result.index_add_(0, site.rows.to(result.device), change)
    result = result.to(old.dtype)
    return (result.T if transposed else result).contiguous()


def _apply(module: Any, after: dict[str, Tensor], added_bias: bool) -> Edit:
    before = {name: getattr(module, name).detach().clone() for name in after if not (added_bias and name == "bias")}
    with torch.no_grad():
        for name, value in after.items():
            if name == "bias" and added_bias:
                module.bias = nn.Parameter(value.clone(), requires_grad=False)
            else:
                getattr(module, name).copy_(value)
    first = bool(after) and module not in merged
    if first:
        merged.add(module)
    return Edit(module, before, after, added_bias, first)
