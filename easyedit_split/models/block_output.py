"""Whether a change may be added to its block's output instead of at its site: measured."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from .parts import decoder, decoder_layers, embedding_device
from .sites import ResolvedSite, Site, resolve_site


class _Reached(Exception):
    """Raised by the hook on the block that is asked for."""


def adds_to_stream(model: Any, site: ResolvedSite) -> bool:
    """Whether the site's block returns the site's output plus what does not depend on it: a change can then be added to
    the block's output.

    So it is at the block's output itself, and at a feed-forward's last map where nothing stands between
    (`passes_unchanged`). Nothing else may be hooked there than one change.
    """
    block = decoder_layers(model)[site.site.layer]
    hooks = len(block._forward_hooks) + len(block._forward_pre_hooks)
    if site.is_residual:
        return hooks <= 1
    stream = resolve_site(model, Site(site.site.layer, "residual"))
    if site.module is not stream.linear or hooks or len(site.module._forward_hooks) > 1:
        return False
    return passes_unchanged(model, site.site.layer, site.module)


def passes_unchanged(model: Any, layer: int, module: nn.Module) -> bool:
    """Whether what is added to the output of `module`, a part of block `layer`, is added to the block's output.

    Measured: noise added there must come out as it went in, on two tokens. A norm behind the module, a multiplier of
    the residual stream, or a hook elsewhere in the block is found that way.
    """
    found = _with_and_without_noise(model, layer, module)
    if len(found) < 3:
        return False
    plain, moved, noise = found
    size = plain.abs() + noise.abs() + plain.abs().median()
    right = (moved.float() - plain.float() - noise.float()).abs() <= 8 * torch.finfo(plain.dtype).eps * size.float()
    return bool(right.float().mean() > 0.99)  # where large numbers cancel, rounding is larger


def _with_and_without_noise(model: Any, layer: int, module: nn.Module) -> list[Tensor]:
    """The block's output for two tokens, `(1, 2, d)`, the same with noise added to the output of `module`, and the
    noise. The first alone, where it has several streams, which no map's output is added to as it is.

    The blocks below run once, those above not at all.
    """
    found: list[Tensor] = []

    def reached(block: nn.Module, args: Any, options: Any, output: Any) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])
        plain = found[0]
        if len(found) == 1 and plain.ndim == 3:
            noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0)).to(plain) * plain.std()
            disturbing = module.register_forward_hook(functools.partial(_disturb, noise))
            try:
                block(*args, **options)
            finally:
                disturbing.remove()
            found.append(noise)
        if len(found) != 2:
            raise _Reached

    hook = decoder_layers(model)[layer].register_forward_hook(reached, with_kwargs=True)
    tokens = torch.tensor([[0, 1]], device=embedding_device(model))
    try:
        with torch.no_grad():
            decoder(model)(input_ids=tokens, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found


def _disturb(noise: Tensor, module: nn.Module, args: Any, output: Any) -> Any:
    return output + noise.to(output.device).view(output.shape) if isinstance(output, Tensor) else output
