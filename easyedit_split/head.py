"""The vocabulary projection and cross-entropy, on answer positions only, in chunks, never keeping the logits.

The gradient of a token's loss to its hidden state, `(softmax - onehot) @ W`, is computed while the logits are at
hand, so that the backward pass is one multiplication.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sites import unwrap

_CPU_BYTES, _GPU_BYTES = 32 << 20, 512 << 20


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Any, cap: float | None) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for part in _chunks(hidden, head):
            logits = _logits(hidden[part], head, cap)
            bend = None if cap is None else 1 - (logits / cap).square()
            losses[part] = _to_slope(logits, targets[part, None])
            if bend is not None:
                logits *= bend
            gradient[part] = logits.to(head.weight.dtype) @ head.weight
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return (gradient.float() * upstream[:, None]).to(gradient.dtype), None, None, None


def token_losses(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """`-log p(target)` in nats, float32, `(K,)`, for hidden states `(K, d)` and targets `(K,)`."""
    inner = unwrap(model)
    head, cap = inner.get_output_embeddings(), getattr(inner.config, "final_logit_softcapping", None)
    if torch.is_grad_enabled() and hidden.requires_grad:
        if _is_plain(head):
            return _TokenLoss.apply(hidden, targets, head, cap)
        parts = _chunks(hidden, head)
        return torch.cat([F.cross_entropy(_logits(hidden[p], head, cap), targets[p], reduction="none") for p in parts])
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for part in _chunks(hidden, head):
        logits, target = _logits(hidden[part], head, cap), targets[part, None]
        wanted = logits.gather(1, target)
        losses[part] = (_normaliser(logits)[0] - wanted).squeeze(1)
    return losses


def _normaliser(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`log sum exp` of each row, and that sum relative to the row's maximum, each `(K, 1)`. Overwrites `logits` with
    their exponentials relative to the maximum."""
    top = logits.amax(dim=1, keepdim=True)
    total = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
    return top + total.log(), total


def _to_slope(logits: Tensor, target: Tensor) -> Tensor:
    """Losses `(K,)`; overwrites `logits` with the losses' derivative to them, `softmax - onehot`."""
    wanted = logits.gather(1, target)
    log_z, total = _normaliser(logits)
    logits.div_(total).scatter_add_(1, target, torch.full_like(total, -1.0))
    return (log_z - wanted).squeeze(1)


def _is_plain(head: Any) -> bool:
    """Whether the head's derivative is its `weight`: not where it is wrapped, quantised, hooked or offloaded."""
    return type(head) is nn.Linear and not (head._forward_hooks or head._forward_pre_hooks or head.weight.is_meta)


def _logits(hidden: Tensor, head: Any, cap: float | None) -> Tensor:
    logits = head(hidden).float()  # a fresh tensor: it is overwritten
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _chunks(hidden: Tensor, head: Any) -> list[slice]:
    """Runs of rows whose logits stay in a processor's cache, or fill an accelerator."""
    step = max(16, (_CPU_BYTES if hidden.device.type == "cpu" else _GPU_BYTES) // (4 * head.weight.shape[0]))
    return [slice(i, i + step) for i in range(0, len(hidden), step)]
