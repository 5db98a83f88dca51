"""Hang a change on a running model and turn its dial: `h' = (W + m1 dW) h + (b + m2 db)` (paper, Eq. 4).

The hook sits on the linear module itself, never on the block's output: where a norm follows the feed-forward
(Gemma-2, Gemma-3) the two differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SiteError
from ..models.parts import decoder
from ..models.protocols import CausalLM
from ..models.sites import ResolvedSite, Site, Sites, resolve_site
from .at_site import AtSite, add_scaled
from .at_site import ablate_direction as ablate_direction
from .at_site import check_fit as check_fit
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
        self._parts = [AtSite(part, site) for part, site in zip(parts_of(delta), self.sites, strict=True)]
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

    def _after_module(self, part: AtSite, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
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

    def _acts(self, part: AtSite) -> bool:
        return self._ablate or any(isinstance(m, Tensor) or m != 0.0 for m in self._strength_of(part))

    def _strength_of(self, part: AtSite) -> tuple[Value, Value]:
        return self.strength.at(part.site.site.layer)

    def _steered(self, part: AtSite, x: Tensor, out: Tensor) -> Tensor:
        if self._ablate:
            return self._select(out, part.ablated(out))
        m1, m2 = self._strength_of(part)
        if self._mask is None and part.site.rows is None and self._dropout == 0.0:
            linear, bias = part.terms(x, out)
            return add_scaled(add_scaled(out, linear, m1), bias, m2)
        return self._select(out, part.added(x, out, m1, m2, self._dropout))

    def _select(self, plain: Tensor, steered: Tensor) -> Tensor:
        if self._mask is None:
            return steered
        mask = self._mask.to(plain.device)
        if mask.shape[0] not in (1, plain.shape[0]) or mask.shape[1] != plain.shape[1]:
            raise SiteError(f"the position mask is {tuple(mask.shape)} but the batch is {tuple(plain.shape[:2])}")
        return torch.where(mask.unsqueeze(-1), steered, plain)


def handles_on(model: CausalLM) -> list[Handle]:
    """Every handle that is attached to the model, in the order they were attached."""
    hooks = (getattr(hook, "__self__", None) for hook in decoder(model)._forward_pre_hooks.values())
    return [owner for owner in hooks if isinstance(owner, Handle)]


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
