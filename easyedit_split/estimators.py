"""Training-free estimates of a steering vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .artifact import SteeringArtifact, describe_model, origin_of
from .deltas import Vector
from .forward import block_outputs, run_rows
from .layout import lay_out
from .models import context_length, held_still
from .pairs import PreferencePair
from .sites import Site, embedding_device, resolve_site
from .tokens import EncodedPair, Encoder


def diff_mean(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[PreferencePair],
    *,
    layer: int,
    batch_size: int = 16,
    chat: bool = True,
    system_prompt: str = "",
    progress: bool = False,
) -> SteeringArtifact:
    """Mean hidden state over matching answers' tokens minus that over not-matching answers' tokens.

    The states are those at the output of block `layer`. Each answer counts once: the mean over its tokens (end token
    included), then the mean over pairs.

    Raises:
        SiteError, DataError: see `resolve_site`, `Encoder.pairs`.
    """
    site = Site(layer, "residual")
    resolve_site(model, site)
    encoded = Encoder(tokenizer, chat, system_prompt).pairs(pairs, context_length(model))
    means = answer_means(model, encoded, layer, batch_size, progress)
    vector = Vector(means.shape[-1], means.shape[-1])
    with torch.no_grad():
        vector.db.copy_((means[:, 0] - means[:, 1]).mean(dim=0))
    origin = origin_of(pairs, {"name": "diff_mean"}, chat, system_prompt)
    return SteeringArtifact(vector.requires_grad_(False), site, model=describe_model(model), origin=origin)


def answer_means(
    model: Any, encoded: Sequence[EncodedPair], layer: int, batch_size: int, progress: bool = False
) -> Tensor:
    """Mean output of block `layer` over each answer's tokens, `(N, 2, d)` float32 on the CPU."""
    # one more token behind each answer, so that its own last token is an input
    longer = [EncodedPair(e.prompt, (*e.matching, 0), (*e.not_matching, 0)) for e in encoded]
    found: list[Tensor] = []
    starts = tqdm(range(0, len(longer), batch_size), "diff_mean", unit="batch", disable=not progress)
    with held_still(model), torch.no_grad(), block_outputs(model, layer) as states:
        for start in starts:
            batch = lay_out(longer[start : start + batch_size], packed=False).to(embedding_device(model))
            states.clear()
            run_rows(model, batch)
            weight = (batch.segments > 0).to(states[0].device, torch.float32)
            total = torch.einsum("rt,rtd->rd", weight, states[0].float()) / weight.sum(1, keepdim=True)
            found.append(total.view(-1, 2, total.shape[-1]).cpu())
    return torch.cat(found)
