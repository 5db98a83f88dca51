"""Activations at a layer's output, clean and steered: what the measured manifold (paper, section 4) is made of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..changes.artifact import SteeringArtifact
from ..data.pairs import PreferencePair
from ..data.tokens import EncodedPair, Encoder
from ..errors import SiteError
from ..models.guards import eval_mode_frozen
from ..models.parts import context_length, decoder_layers, embedding_device
from ..models.protocols import CausalLM, Tokenizer
from .forward import block_outputs, run_rows
from .lower_blocks import LowerBlocks
from .probe import rows_can_be_shared
from .rows import Batch, lay_out, row_length


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
    model: CausalLM, encoded: Sequence[EncodedPair], layers: Sequence[int], batch_size: int, progress: bool = False
) -> Tensor:
    """Mean output of each of the blocks `layers` over each answer's tokens, `(L, N, 2, d)` float32 on the CPU.

    One pass for all layers, up to the highest of them; both answers share a row where the model allows it.
    """
    # one more token behind each answer, so that its own last token is an input
    longer = [EncodedPair(e.prompt, (*e.matching, 0), (*e.not_matching, 0)) for e in encoded]
    packed = _rows_can_be_shared(model, longer)
    order = sorted(range(len(longer)), key=lambda i: row_length(longer[i], packed))
    found: list[Tensor] = []
    starts = tqdm(range(0, len(order), batch_size), "diff_mean", unit="batch", disable=not progress)
    with eval_mode_frozen(model), torch.no_grad():
        for start in starts:
            batch = lay_out([longer[i] for i in order[start : start + batch_size]], packed)
            found.append(_batch_means(model, batch.to(embedding_device(model)), layers))
    return torch.cat(found, dim=1)[:, torch.tensor(order).argsort()]


def _batch_means(model: CausalLM, batch: Batch, layers: Sequence[int]) -> Tensor:
    """`answer_means` of a batch."""
    answers = range(1, 4 - batch.rows_per_pair)
    weight = torch.stack([batch.segments == number for number in answers], dim=1).float()
    weight /= weight.sum(2, keepdim=True)
    means: dict[int, Tensor] = {}

    def keep(layer: int, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        means[layer] = (weight.to(states.device) @ states.float()).view(-1, 2, states.shape[-1])

    with ExitStack() as stack:
        for layer in layers:
            block = decoder_layers(model)[layer]
            hook = block.register_forward_hook(lambda m, a, output, layer=layer: keep(layer, output))
            stack.callback(hook.remove)
        LowerBlocks(model, max(layers) + 1).run(lambda: run_rows(model, batch))
    return torch.stack([means[layer].cpu() for layer in layers])


def _rows_can_be_shared(model: CausalLM, pairs: Sequence[EncodedPair]) -> bool:
    """As the probe finds it; False for a model whose losses cannot be computed here: its states can."""
    try:
        return rows_can_be_shared(model, pairs)
    except SiteError:
        return False
