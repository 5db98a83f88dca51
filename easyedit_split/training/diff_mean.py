"""Training-free estimates of a steering vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..changes.artifact import SteeringArtifact
from ..changes.forms import Joint, LinearDelta, Vector
from ..changes.provenance import origin_of
from ..data.pairs import PreferencePair
from ..data.tokens import Encoder
from ..models.identity import identify_model
from ..models.parts import context_length
from ..models.protocols import CausalLM, Tokenizer
from ..models.sites import Site, resolve_site, sites_of
from ..scoring.activations import answer_means


def diff_mean(
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    *,
    layer: int | Iterable[int],
    batch_size: int = 16,
    chat: bool = True,
    system_prompt: str = "",
    progress: bool = False,
) -> SteeringArtifact:
    """Mean hidden state over matching answers' tokens minus that over not-matching answers' tokens.

    The states are those at the output of block `layer`; for several layers the artifact has a vector at each. Each
    answer counts once: the mean over its tokens (end token included), then the mean over pairs.

    Raises:
        SiteError, DataError: see `resolve_site`, `Encoder.pairs`.
    """
    layers = [layer] if isinstance(layer, int) else list(layer)
    site = sites_of(Site(one, "residual") for one in layers)
    for one in site.sites:
        resolve_site(model, one)
    encoded = Encoder(tokenizer, chat, system_prompt).pairs(pairs, context_length(model))
    means = answer_means(model, encoded, [one.layer for one in site.sites], batch_size, progress)
    parts = [_difference(of_layer) for of_layer in means]
    delta = parts[0] if len(parts) == 1 else Joint(parts)
    origin = diff_mean_origin(pairs, chat, system_prompt)
    return SteeringArtifact(delta.requires_grad_(False), site, model=identify_model(model, *layers), origin=origin)


def _difference(means: Tensor) -> LinearDelta:
    """The vector of means `(N, 2, d)`."""
    vector = Vector(means.shape[-1], means.shape[-1])
    with torch.no_grad():
        vector.db.copy_((means[:, 0] - means[:, 1]).mean(dim=0))
    return vector


def diff_mean_origin(pairs: Sequence[PreferencePair], chat: bool, system_prompt: str) -> dict[str, Any]:
    """What an artifact remembers of it."""
    return origin_of(pairs, {"name": "diff_mean"}, chat, system_prompt)
