"""Activations at a layer's output, clean and steered: what the measured manifold (paper, section 4) is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..changes.artifact import SteeringArtifact
from ..data.pairs import PreferencePair
from ..data.tokens import EncodedPair, Encoder
from ..models.guards import eval_mode_frozen
from ..models.parts import context_length, embedding_device
from ..models.protocols import CausalLM, Tokenizer
from .forward import block_outputs, run_rows
from .rows import lay_out


def collect_activations(
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    artifact: SteeringArtifact,
    factors: Sequence[float],
    *,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Output of the artifact's block, the highest of several, at the tokens of both answers, for each strength.

    The pairs' answers are the stable inputs: texts the unsteered model handles well. The last token of an answer is
    never an input, so it is left out. The order of tokens is the same for every strength.

    Returns:
        One float32 array `(K, d)` a strength.
    """
    encoder = Encoder(tokenizer, artifact.origin.get("chat", True), artifact.origin.get("system_prompt", ""))
    encoded = encoder.pairs(pairs, context_length(model))
    found: list[list[np.ndarray]] = [[] for _ in factors]
    with (
        eval_mode_frozen(model),
        torch.no_grad(),
        artifact.attach(model, 0.0) as handle,
        block_outputs(model, artifact.site.sites[-1].layer) as states,
    ):
        for start in range(0, len(encoded), batch_size):
            batch = lay_out(encoded[start : start + batch_size], packed=False).to(embedding_device(model))
            for k, m in enumerate(factors):
                states.clear()
                handle.set_strength(float(m))
                run_rows(model, batch)
                found[k].append(states[0][batch.segments.to(states[0].device) > 0].float().cpu().numpy())
    return [np.concatenate(parts) for parts in found]


def answer_means(
    model: CausalLM, encoded: Sequence[EncodedPair], layer: int, batch_size: int, progress: bool = False
) -> Tensor:
    """Mean output of block `layer` over each answer's tokens, `(N, 2, d)` float32 on the CPU."""
    # one more token behind each answer, so that its own last token is an input
    longer = [EncodedPair(e.prompt, (*e.matching, 0), (*e.not_matching, 0)) for e in encoded]
    found: list[Tensor] = []
    starts = tqdm(range(0, len(longer), batch_size), "diff_mean", unit="batch", disable=not progress)
    with eval_mode_frozen(model), torch.no_grad(), block_outputs(model, layer) as states:
        for start in starts:
            batch = lay_out(longer[start : start + batch_size], packed=False).to(embedding_device(model))
            states.clear()
            run_rows(model, batch)
            weight = (batch.segments > 0).to(states[0].device, torch.float32)
            total = torch.einsum("rt,rtd->rd", weight, states[0].float()) / weight.sum(1, keepdim=True)
            found.append(total.view(-1, 2, total.shape[-1]).cpu())
    return torch.cat(found)
