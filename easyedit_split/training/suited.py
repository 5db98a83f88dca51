"""Settings that suit themselves to a model: the layer by its share of the depth, the learning rate by activations.

A file with `layer_share` and `step_share` in place of `layers` and `lr` serves models of any depth and width.
`layer_share` is where the layer stands (0.5: half of the blocks below it). `step_share` is how far one optimiser step
moves the site's output at the middle steering factor, as a share of the root mean square of the block's output:
AdamW moves each number by about lr, so the learning rate follows from the activations that the change is added to; of
layers that are trained together, from those where it comes out smallest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..data.pairs import PreferencePair
from ..settings.hyperparameters import Hyperparameters
from ..settings.shipped import made_for

PROBED = 16  # pairs whose activations are measured


@dataclass(frozen=True)
class Suited:
    """Settings with layer and learning rate filled in, and what was chosen and why, a sentence each."""

    hp: Hyperparameters
    reasons: tuple[str, ...]


def suited(hp: Hyperparameters, model: Any, tokenizer: Any, pairs: Sequence[PreferencePair]) -> Suited:
    """Fill in what the settings leave to the model: `layers` where none is named, `lr` where `step_share` is given.

    A layer of a shipped file that was made for another depth stays, and is said.

    Raises:
        DataError, SiteError: see `Encoder.pairs` and `resolve_site`.
    """
    from ..models.parts import decoder_layers

    reasons: list[str] = []
    depth = len(decoder_layers(model))
    if not hp.layers and hp.layer_share is not None:
        layer = min(depth - 1, round(hp.layer_share * depth))
        hp = replace(hp, layers=(layer,))
        reasons.append(f"layer {layer}: {hp.layer_share:g} of the model's {depth} blocks; layers=[N] sets another")
    elif (home := made_for(hp.source)) and home[1] != depth:
        reasons.append(
            f"layer {', '.join(map(str, hp.layers))} is of a file for {home[0]}, which has {home[1]} blocks, and this "
            f"model has {depth}: the same share of the depth is layer {round(hp.layers[0] / home[1] * depth)}"
        )
    if hp.step_share is not None and hp.layers and hp.objective_name != "diff_mean":
        scales = [
            activation_scales(replace(hp, layers=(layer,)), model, tokenizer, pairs[:PROBED])
            for layer in (hp.layers if hp.joint else hp.layers[:1])
        ]
        stream, reach = min(scales, key=lambda scale: scale[0] / scale[1])
        middle = sorted(map(abs, hp.steering_factors))[len(hp.steering_factors) // 2]
        lr = float(f"{hp.step_share * stream / (middle * reach):.2g}")
        hp = replace(hp, lr=lr, step_share=None)
        least = " in the layer that bears least" if len(scales) > 1 else ""
        percent = 100 * lr * middle * reach / stream
        reasons.append(
            f"lr {lr:g}: one step at m = {middle:g} moves the output by {percent:.2g}% of the block's output, whose "
            f"root mean square is {stream:.3g}{least}; lr=X sets another"
        )
    return Suited(hp, tuple(reasons))


def activation_scales(
    hp: Hyperparameters, model: Any, tokenizer: Any, pairs: Sequence[PreferencePair]
) -> tuple[float, float]:
    """Root mean square of the block's output, and how far a step of size 1 in each trained number moves the site's.

    A step of 1 moves a vector's output by 1, a weight's by the sum of its input's magnitudes, and LoRA's (whose `B`
    starts at zero) by the sum over its rank of |A x|, expected under the draw of `A`. Medians over answer tokens.
    """
    import torch

    from ..data.tokens import Encoder
    from ..models.guards import eval_mode_frozen
    from ..models.parts import context_length, embedding_device
    from ..models.sites import Site, resolve_site
    from ..scoring.forward import block_outputs, run_rows
    from ..scoring.rows import lay_out

    encoded = Encoder(tokenizer, hp.use_chat_template, hp.system_prompt).pairs(pairs, context_length(model))
    site = resolve_site(model, Site(hp.layers[0], hp.component))
    inputs: list[Any] = []
    hook = site.module.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    try:
        with eval_mode_frozen(model), torch.no_grad(), block_outputs(model, hp.layers[0]) as states:
            batch = lay_out(encoded, packed=False).to(embedding_device(model))
            run_rows(model, batch)
    finally:
        hook.remove()
    counted = batch.segments > 0
    stream = states[0][counted.to(states[0].device)].float().pow(2).mean(-1).sqrt().median().item()
    if hp.intervention_method == "vector":
        return stream, 1.0
    x = inputs[0][counted.to(inputs[0].device)].float()
    if hp.intervention_method == "local_weight":
        return stream, x.abs().sum(-1).median().item()
    # A is uniform in +-1/sqrt(d), so A x is nearly normal with variance |x|^2 / 3d; its mean magnitude is sqrt(2/pi)
    # times the root of that
    size = x.pow(2).mean(-1).sqrt().median().item() / math.sqrt(3)
    return stream, hp.low_rank_dimension * size * math.sqrt(2 / math.pi)
