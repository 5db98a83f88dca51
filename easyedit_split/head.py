"""The vocabulary projection and cross-entropy, on answer positions only, in chunks, never keeping the logits.

The gradient of a token's loss to its hidden state, `(softmax - onehot) @ W`, is computed while the logits are at
hand, so that the backward pass is one multiplication.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .sites import unwrap

_CHUNK_BYTES = 64 << 20


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Any, cap: float | None) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for part in _chunks(len(hidden), head):
            logits = _logits(hidden[part], head, cap)
            target = targets[part, None]
            log_z = logits.logsumexp(dim=-1, keepdim=True)
            losses[part] = (log_z - logits.gather(1, target)).squeeze(1)
            slope = (logits - log_z).exp_()
            slope.scatter_add_(1, target, torch.full_like(log_z, -1.0))
            if cap is not None:
                slope *= 1 - (logits / cap).square()
            gradient[part] = slope.to(head.weight.dtype) @ head.weight
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
        return _TokenLoss.apply(hidden, targets, head, cap)
    parts = [
        F.cross_entropy(_logits(hidden[part], head, cap), targets[part], reduction="none")
        for part in _chunks(len(hidden), head)
    ]
    return torch.cat(parts)


def _logits(hidden: Tensor, head: Any, cap: float | None) -> Tensor:
    logits = head(hidden).float()
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _chunks(count: int, head: Any) -> list[slice]:
    step = max(1, _CHUNK_BYTES // (4 * head.weight.shape[0]))
    return [slice(i, i + step) for i in range(0, count, step)]
