"""The tokens that a vector promotes, read through the vocabulary projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..changes.change import Change
from ..errors import ConfigError, SiteError
from ..models.architectures import norm_behind
from ..models.parts import decoder_layers, device_of, final_norm, unwrap
from ..models.protocols import CausalLM, Tokenizer

_WRITES_TO_STREAM = ("mlp.down_proj", "self_attn.o_proj")


@dataclass(frozen=True)
class PromotedToken:
    """A token and its score: the logit it gets where the vector's direction is all there is in the last state."""

    token_id: int
    text: str
    score: float


def promoted_tokens(
    model: CausalLM, tokenizer: Tokenizer, artifact: Change, count: int = 10, sign: float = 1.0
) -> list[PromotedToken]:
    """The tokens a change's `db` promotes most through the unembedding ("logit lens"), best first.

    The vector passes the norm behind its site, where there is one, then the model's last norm and its vocabulary
    projection; the scores of a zero state are subtracted. `sign=-1` gives those that a negative m promotes.

    Raises:
        ConfigError: the change has no `db`.
        SiteError: its site does not write into the residual stream.
    """
    db = artifact.delta.bias_term()
    if db is None:
        raise ConfigError(f"form {artifact.form!r} has no db, so it promotes no token by itself")
    site = artifact.resolve(model)
    norms = [final_norm(model)]
    if not site.is_residual:
        if site.site.component not in _WRITES_TO_STREAM:
            raise SiteError(f"{site.site} does not write into the residual stream: its tokens are not defined")
        block = decoder_layers(model)[site.site.layer]
        behind = norm_behind(block, site.site.component)
        if behind is not None:
            norms.insert(0, getattr(block, behind))
    scores = _lens(model, norms, sign * db.detach())
    best = scores.topk(min(count, len(scores)))
    return [
        PromotedToken(i, tokenizer.decode([i]), s)
        for i, s in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _lens(model: CausalLM, norms: Sequence[Any], vector: Tensor) -> Tensor:
    head = unwrap(model).get_output_embeddings()
    vector = vector.cpu()
    if bool(vector.any()):
        vector = vector * (1e3 / vector.square().mean().sqrt())  # so long that the norm's epsilon is nothing
    states = torch.stack([vector, torch.zeros_like(vector)]).to(head.weight.dtype)
    with torch.no_grad():
        for module in (*norms, head):  # each may be on a device of its own
            states = module(states.to(device_of(module)))
    logits = states.float().cpu()
    return logits[0] - logits[1]
