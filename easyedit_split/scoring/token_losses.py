"""The vocabulary projection and cross-entropy, on answer positions only, in chunks, never keeping the logits.

The gradient of a token's loss to its hidden state, `(softmax - onehot) @ W`, is computed while the logits are at
hand, so that the backward pass is one multiplication. On a processor the products want many rows and the passes over
them few: logits are made for a large chunk, in memory that is kept, and exponentiated a few rows at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.architectures import logits_scale
from ..models.parts import device_of, text_config, unwrap
from ..models.protocols import CausalLM

_CPU_BYTES, _GPU_BYTES = 64 << 20, 512 << 20
_CACHE_BYTES = 1 << 20  # of rows that stay in a core's own cache between passes


class Scratch:
    """Memory for a chunk of logits on a processor, kept from call to call: fresh pages cost as much as a pass."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def logits(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """`hidden @ weight.T`, overwritten by the next call."""
        rows, columns = len(hidden), len(weight)
        if self._memory.numel() < rows * columns:
            self._memory = torch.empty(rows * columns)
        return torch.mm(hidden, weight.T, out=self._memory[: rows * columns].view(rows, columns))


def _loss_and_gradient(
    hidden: Tensor, targets: Tensor, head: nn.Linear, cap: float | None, scratch: Scratch | None
) -> tuple[Tensor, Tensor]:
    """Each token's loss `(K,)`, and its gradient to the hidden state `(K, d)`: `softmax @ W` less the target's row of
    `W`, every logit's part times the slope of the soft cap."""
    logits, target = _logits(hidden, head, cap, scratch), targets[:, None]
    slope = None if cap is None else _slope_of_cap(logits, cap)
    target_logit, target_row = logits.gather(1, target), head.weight[targets].float()
    log_total, total = _exponentiate(logits)  # from here on `logits / total` is the softmax
    losses = (log_total - target_logit).squeeze(1)
    if slope is not None:
        logits *= slope
        target_row *= slope.gather(1, target)
    if head.weight.dtype == torch.float16:  # whose sums would overflow
        logits, total = logits.div_(total), torch.ones_like(total)
    mean_row = (logits.to(head.weight.dtype) @ head.weight).float() / total
    return losses, mean_row - target_row


def _slope_of_cap(capped: Tensor, cap: float) -> Tensor:
    """Derivative of `c = cap * tanh(z / cap)` in z, from c itself: `1 - tanh(z / cap)^2 = 1 - (c / cap)^2`.

    It is 1 for small logits, and goes to 0 where they reach the cap and no longer move.
    """
    return 1 - (capped / cap).square()


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, head: Any, cap: float | None, scratch: Scratch | None
    ) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for part in _chunks(hidden, head):
            losses[part], gradient[part] = _loss_and_gradient(hidden[part], targets[part], head, cap, scratch)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return (gradient.float() * upstream[:, None]).to(gradient.dtype), None, None, None, None


def token_losses(model: CausalLM, hidden: Tensor, targets: Tensor, scratch: Scratch | None = None) -> Tensor:
    """`-log p(target)` in nats, float32, `(K,)`, for hidden states `(K, d)` and targets `(K,)`, on the head's device.

    `scratch` saves time where many calls follow each other.
    """
    hidden, head, cap = _at_head(model, hidden)
    targets = targets.to(hidden.device)
    if torch.is_grad_enabled() and hidden.requires_grad:
        if _is_plain(head):
            return _TokenLoss.apply(hidden, targets, head, cap, scratch)
        parts = _chunks(hidden, head)
        return torch.cat([F.cross_entropy(_logits(hidden[p], head, cap), targets[p], reduction="none") for p in parts])
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for part in _chunks(hidden, head):
        logits = _logits(hidden[part], head, cap, scratch)
        wanted = logits.gather(1, targets[part, None])
        losses[part] = (_exponentiate(logits)[0] - wanted).squeeze(1)
    return losses


def log_probabilities(model: CausalLM, hidden: Tensor) -> Tensor:
    """`log p` of every token in nats, float32, `(K, V)`, for hidden states `(K, d)`, on the head's device; all of it is
    in memory at once."""
    hidden, head, cap = _at_head(model, hidden)
    return torch.log_softmax(_logits(hidden, head, cap), dim=-1)


def _at_head(model: CausalLM, hidden: Tensor) -> tuple[Tensor, Any, float | None]:
    """Hidden states as the head takes them, on its device; the head; and the soft cap of its logits."""
    config, head = text_config(model), unwrap(model).get_output_embeddings()
    hidden = hidden.to(device_of(head))  # tied embeddings may be on another device than the last block
    if (scale := logits_scale(config)) != 1.0:
        hidden = hidden * scale
    return hidden, head, getattr(config, "final_logit_softcapping", None)


def _exponentiate(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`log sum exp` of each row, and that sum relative to the row's maximum, each `(K, 1)`. Overwrites `logits` with
    their exponentials relative to the maximum."""
    step = len(logits) if logits.is_cuda else max(1, _CACHE_BYTES // (4 * logits.shape[1]))
    tops, totals = [], []
    for rows in logits.split(step):
        tops.append(rows.amax(dim=1, keepdim=True))
        totals.append(rows.sub_(tops[-1]).exp_().sum(dim=1, keepdim=True))
    total = torch.cat(totals)
    return torch.cat(tops) + total.log(), total


def _is_plain(head: Any) -> bool:
    """Whether the head's derivative is its `weight`: not where it is wrapped, quantised, hooked or offloaded."""
    return type(head) is nn.Linear and not (head._forward_hooks or head._forward_pre_hooks or head.weight.is_meta)


def _logits(hidden: Tensor, head: Any, cap: float | None, scratch: Scratch | None = None) -> Tensor:
    """Float32 logits that the caller may overwrite."""
    if scratch is not None and _is_plain(head) and head.bias is None and _on_cpu_in_float32(hidden, head.weight):
        with torch.no_grad():
            logits = scratch.logits(hidden, head.weight)
    else:
        logits = head(hidden).float()
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _on_cpu_in_float32(*tensors: Tensor) -> bool:
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def _chunks(hidden: Tensor, head: Any) -> list[slice]:
    """Runs of rows, about as long as each other, whose logits take so much memory that products run at full rate."""
    step = max(16, (_CPU_BYTES if hidden.device.type == "cpu" else _GPU_BYTES) // (4 * head.weight.shape[0]))
    step = -(-len(hidden) // max(1, -(-len(hidden) // step)))
    return [slice(i, i + step) for i in range(0, len(hidden), max(1, step))]
