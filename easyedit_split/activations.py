"""Activations at a layer's output, clean and steered: what the measured manifold (paper, section 4) is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .artifact import SteeringArtifact
from .forward import block_outputs, run_rows
from .layout import lay_out
from .models import context_length, held_still
from .pairs import PreferencePair
from .sites import embedding_device
from .tokens import Encoder


def collect_activations(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[PreferencePair],
    artifact: SteeringArtifact,
    factors: Sequence[float],
    *,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Output of the artifact's block at the tokens of both answers, for each strength.

    The pairs' answers are the stable inputs: texts the unsteered model handles well. The last token of an answer is
    never an input, so it is left out. The order of tokens is the same for every strength.

    Returns:
        One float32 array `(K, d)` a strength.
    """
    encoder = Encoder(tokenizer, artifact.origin.get("chat", True), artifact.origin.get("system_prompt", ""))
    encoded = encoder.pairs(pairs, context_length(model))
    found: list[list[np.ndarray]] = [[] for _ in factors]
    with (
        held_still(model),
        torch.no_grad(),
        artifact.attach(model, 0.0) as handle,
        block_outputs(model, artifact.site.layer) as states,
    ):
        for start in range(0, len(encoded), batch_size):
            batch = lay_out(encoded[start : start + batch_size], packed=False).to(embedding_device(model))
            for k, m in enumerate(factors):
                states.clear()
                handle.set_strength(float(m))
                run_rows(model, batch)
                found[k].append(states[0][batch.segments.to(states[0].device) > 0].float().cpu().numpy())
    return [np.concatenate(parts) for parts in found]
