"""Hang a change on a running model and turn its dial: `h' = (W + m1 dW) h + (b + m2 db)` (paper, Eq. 4).

The hook sits on the linear module itself, never on the block's output: where a norm follows the feed-forward
(Gemma-2, Gemma-3) the two differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, SiteError
from ..models.parts import decoder
from ..models.protocols import CausalLM
from ..models.sites import ResolvedSite, Site, Sites, resolve_site
from .forms import LinearDelta, parts_of
from .positions import Positions, mask_of_call, tokens_of_call
from .strength import Strength as Strength
from .strength import Value


class Handle:
    """A change attached to a model; a context manager that removes itself.

    `set_strength` turns the dial, `remove` detaches and leaves the model as it was. For the calls inside them,
    `steer_only` fixes the steered positions, `silenced` turns the change off, `dropping` drops entries of it and
    `ablating` takes its direction out instead of adding it.

    A change of several sites (`sites`, the lowest layer first) has one dial, or one strength a layer.
    """

    def __init__(
        self,
        model: CausalLM,
        delta: LinearDelta,
        sites: ResolvedSite | Sequence[ResolvedSite],
        strength: Strength,
        positions: Positions,
    ) -> None:
        self.sites = (sites,) if isinstance(sites, ResolvedSite) else tuple(sites)
        self._parts = [_Part(part, site) for part, site in zip(parts_of(delta), self.sites, strict=True)]
        strength.check_layers(site.site.layer for site in self.sites)
        self.delta = delta
        self.strength = strength
        self.positions = positions
        self._dropout = 0.0
        self._ablate = False
        self._mask: Tensor | None = None
        self._rows = 1
        self._fixed = False
        self._hooks = [
            decoder(model).register_forward_pre_hook(self._before_decoder, with_kwargs=True),
            *(part.site.module.register_forward_hook(partial(self._after_module, part)) for part in self._parts),
        ]

    @property
    def site(self) -> ResolvedSite:
        """The lowest of the sites."""
        return self.sites[0]

    def set_strength(self, m: Any = None, *, m1: Any = None, m2: Any = None) -> None:
        """Turn the dial: a float, or `(B,)` values, one for each row of the batch; or one of these for each layer,
        as `{14: 2.0, 15: 1.0}`.

        Raises:
            ConfigError: not finite, of the wrong shape, or for other layers than the change has.
        """
        strength = Strength(m, m1=m1, m2=m2)
        strength.check_layers(site.site.layer for site in self.sites)
        self.strength = strength

    @contextmanager
    def steer_only(self, mask: Tensor | None) -> Iterator[None]:
        """Steer exactly the positions of `mask` `(B, T)` bool (None: all) in the forward calls inside."""
        before = self._mask, self._fixed
        self._mask, self._fixed = mask, True
        try:
            yield
        finally:
            self._mask, self._fixed = before

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Inside, the model is unsteered."""
        before = self.strength, self._ablate
        self.strength, self._ablate = Strength(0.0), False
        try:
            yield
        finally:
            self.strength, self._ablate = before

    @contextmanager
    def dropping(self, probability: float) -> Iterator[None]:
        """Inside, each entry of the change is 0 with this probability, and the others are larger for it (dropout)."""
        before, self._dropout = self._dropout, probability
        try:
            yield
        finally:
            self._dropout = before

    @contextmanager
    def ablating(self) -> Iterator[None]:
        """Inside, a vector's direction is taken out of its site's output (`ablate_direction`), at any strength."""
        before, self._ablate = self._ablate, True
        try:
            yield
        finally:
            self._ablate = before

    @contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Inside, each value of a `(B,)` strength serves `times` neighbouring rows."""
        before = self.strength
        self.strength = before.repeated(times)
        try:
            yield
        finally:
            self.strength = before

    def remove(self) -> None:
        """Detach. Idempotent."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for part in self._parts:
            part.forget()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def _before_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._rows = len(tokens_of_call(args, kwargs))
        if not self._fixed:
            self._mask = mask_of_call(self.positions, args, kwargs)

    def _after_module(self, part: _Part, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self._acts(part):
            return None
        shape = (output if isinstance(output, Tensor) else output[0]).shape
        if len(shape) > 3:
            raise SiteError(
                f"{part.site.site} gives {tuple(shape)} in this model, not one state a token: steer another of its "
                "linear maps"
            )
        if not isinstance(output, Tensor):
            return (self._steered(part, args[0], output[0]), *output[1:])
        if output.ndim == 2:  # the block takes its tokens one after the other, whatever their row (OPT, experts)
            x, out = (t.unflatten(0, (self._rows, -1)) for t in (args[0], output))
            return self._steered(part, x, out).flatten(0, 1)
        return self._steered(part, args[0], output)

    def steered(self, x: Tensor, out: Tensor) -> Tensor:
        """`out` `(B, T, d_out)` with the change at the lowest site added, for that site's inputs `x` `(B, T, d_in)`;
        `out` is the site's output, or a sum that it is part of."""
        return self._steered(self._parts[0], x, out) if self._acts(self._parts[0]) else out

    def _acts(self, part: _Part) -> bool:
        return self._ablate or any(isinstance(m, Tensor) or m != 0.0 for m in self._strength_of(part))

    def _strength_of(self, part: _Part) -> tuple[Value, Value]:
        return self.strength.at(part.site.site.layer)

    def _steered(self, part: _Part, x: Tensor, out: Tensor) -> Tensor:
        if self._ablate:
            return self._select(out, part.ablated(out))
        m1, m2 = self._strength_of(part)
        if self._mask is None and part.site.rows is None and self._dropout == 0.0:
            linear, bias = part.terms(x, out)
            return _add(_add(out, linear, m1), bias, m2)
        return self._select(out, part.added(x, out, m1, m2, self._dropout))

    def _select(self, plain: Tensor, steered: Tensor) -> Tensor:
        if self._mask is None:
            return steered
        mask = self._mask.to(plain.device)
        if mask.shape[0] not in (1, plain.shape[0]) or mask.shape[1] != plain.shape[1]:
            raise SiteError(f"the position mask is {tuple(mask.shape)} but the batch is {tuple(plain.shape[:2])}")
        return torch.where(mask.unsqueeze(-1), steered, plain)


class _Part:
    """A change of one affine map, and the site that it is attached to."""

    def __init__(self, delta: LinearDelta, site: ResolvedSite) -> None:
        check_fit(delta, site)
        self.delta, self.site = delta, site
        self._cast: dict[tuple[torch.device, torch.dtype], LinearDelta] = {}

    def terms(self, x: Tensor, out: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """`dW x` and `db`, in the dtype of `out`."""
        delta = self._on(x)
        linear, bias = delta.linear_term(x), delta.bias_term()
        return linear, None if bias is None else bias.to(out.dtype)

    def added(self, x: Tensor, out: Tensor, m1: Value, m2: Value, dropout: float) -> Tensor:
        """`out` with the change added to the site's rows of it."""
        linear, bias = self.terms(x, out)
        change = torch.zeros_like(out if self.site.rows is None else out[..., : len(self.site.rows)])
        change = _add(_add(change, linear, m1), bias, m2)
        if dropout:
            change = F.dropout(change, dropout)
        return out + change if self.site.rows is None else out.index_add(-1, self.site.rows.to(out.device), change)

    def ablated(self, out: Tensor) -> Tensor:
        """`out` without its component along the direction (`ablate_direction`)."""
        if self.site.rows is None:
            return ablate_direction(out, self.delta.bias_term())
        rows = self.site.rows.to(out.device)
        return out.index_copy(-1, rows, ablate_direction(out.index_select(-1, rows), self.delta.bias_term()))

    def forget(self) -> None:
        """Give up the copies in other precisions."""
        self._cast = {}

    def _on(self, x: Tensor) -> LinearDelta:
        """The delta on the layer's own device; frozen parameters also in its dtype, copied once."""
        parameter = next(self.delta.parameters())
        if parameter.requires_grad or (parameter.device, parameter.dtype) == (x.device, x.dtype):
            return self.delta
        key = (x.device, x.dtype)
        if key not in self._cast:
            self._cast[key] = copy.deepcopy(self.delta).to(*key)
        return self._cast[key]


def _add(out: Tensor, term: Tensor | None, m: float | Tensor) -> Tensor:
    """`out + m * term`, rounded once; `m` a float or `(B,)`."""
    if term is None or (isinstance(m, float) and m == 0.0):
        return out
    if isinstance(m, float):
        return torch.add(out, term, alpha=m)
    if m.shape[0] != out.shape[0]:
        raise ConfigError(f"{m.shape[0]} strengths for a batch of {out.shape[0]} rows: give one a row, or one number")
    scale = m.to(out.device).view(-1, *[1] * (out.ndim - 1))
    return (out.float() + scale * term.float()).to(out.dtype)


def ablate_direction(h: Tensor, direction: Tensor | None) -> Tensor:
    """`h` without its component along `direction`: `h - (h . v) v / |v|^2`; `h` `(..., d)`, `direction` `(d,)`.

    The vector form's negative steering in RePS training (Wu et al., 2025). A zero direction changes nothing.
    """
    if direction is None:
        raise ConfigError("only the vector form has a direction to ablate")
    v = direction.to(h.device, torch.float32)
    along = (h.float() @ v) / v.square().sum().clamp_min(1e-12)
    return (h.float() - along.unsqueeze(-1) * v).to(h.dtype)


def handles_on(model: CausalLM) -> list[Handle]:
    """Every handle that is attached to the model, in the order they were attached."""
    hooks = (getattr(hook, "__self__", None) for hook in decoder(model)._forward_pre_hooks.values())
    return [owner for owner in hooks if isinstance(owner, Handle)]


def check_fit(delta: LinearDelta, site: ResolvedSite) -> None:
    """Raise `SiteError` where `delta` does not fit `site`: the form, or the widths."""
    if site.is_residual and delta.form != "vector":
        raise SiteError(
            f"form {delta.form!r} needs a linear map, and the residual stream has none: "
            "use form 'vector', or a component such as 'mlp.down_proj'"
        )
    if delta.d_out != site.d_out or (delta.form != "vector" and delta.d_in != site.d_in):
        have = f"{delta.d_out}" if delta.form == "vector" else f"{delta.d_out} x {delta.d_in}"
        want = f"{site.d_out}" if delta.form == "vector" else f"{site.d_out} x {site.d_in}"
        raise SiteError(f"the change is {have} but {site.site} of this model is {want}: it was made for another model")


def attach(
    model: CausalLM,
    delta: LinearDelta,
    site: Site | Sites | ResolvedSite | Sequence[ResolvedSite],
    m: Any = None,
    *,
    m1: Any = None,
    m2: Any = None,
    positions: Positions | str = "all",
) -> Handle:
    """Add `delta` to `site` of `model` with strength `m` (or `m1` and `m2`) until the handle is removed.

    Raises:
        SiteError: no such site, or the change does not fit it.
        ConfigError: a strength that is not finite or not a number or `(B,)`.
    """
    resolved = [resolve_site(model, one) for one in site.sites] if isinstance(site, (Site, Sites)) else site
    rule = positions if isinstance(positions, Positions) else Positions(positions)
    return Handle(model, delta, resolved, Strength(m, m1=m1, m2=m2), rule)
