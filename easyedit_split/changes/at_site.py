"""A change of one affine map at its site: what it adds to the map's output (paper, Eqs. 4 and 5)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, SiteError
from ..models.sites import ResolvedSite
from .forms import LinearDelta
from .strength import Value


class AtSite:
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
        change = add_scaled(add_scaled(change, linear, m1), bias, m2)
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


def add_scaled(out: Tensor, term: Tensor | None, m: float | Tensor) -> Tensor:
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
