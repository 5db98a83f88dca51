"""Helpers of the law tests: artifacts full of noise, padded calls, and the tolerance the laws are stated in."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from tiny import random_delta
from torch import Tensor

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import FORMS, make_delta
from easyedit_split.changes.positions import Positions
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import EncodedPair
from easyedit_split.models.identity import describe_model
from easyedit_split.models.sites import Site, resolve_site

TOLERANCE = 1e-5  # relative to the largest value, float32 (DESIGN.md, law 2)
FORMS_AND_COMPONENTS = [(form, "mlp.down_proj") for form in FORMS] + [
    ("vector", "residual"),
    ("local_weight", "self_attn.q_proj"),
    ("lora", "self_attn.v_proj"),
    ("lora", "mlp.up_proj"),
    ("local_weight", "self_attn.o_proj"),
]


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Largest difference relative to the largest expected value."""
    assert found.shape == expected.shape
    worst = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert worst <= tolerance, f"relative difference {worst:.1e} above {tolerance:.0e}"


def noisy(
    model: Any,
    form: str = "local_weight",
    component: str = "mlp.down_proj",
    layer: int = 1,
    positions: Positions | str = "all",
    scale: float = 0.1,
    seed: int = 1,
) -> SteeringArtifact:
    """An artifact whose change is random noise, large enough to matter."""
    site = Site(layer, component)
    resolved = resolve_site(model, site)
    delta = random_delta(make_delta(form, resolved.d_in, resolved.d_out, rank=3), scale, seed)
    rule = positions if isinstance(positions, Positions) else Positions(positions)
    return SteeringArtifact(delta, site, rule, describe_model(model), {})


@torch.no_grad()
def logits(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of one forward call; positions count real tokens, as `generate` counts them."""
    if mask is None:
        return model(input_ids=ids, use_cache=False).logits
    position_ids = (mask.cumsum(1) - 1).clamp_min(0)
    return model(input_ids=ids, attention_mask=mask, position_ids=position_ids, use_cache=False).logits


def encoded_pairs(count: int = 5, seed: int = 3) -> list[EncodedPair]:
    """Pairs of uneven lengths, one-token answers among them."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(0, 256, (length,), generator=generator).tolist())

    pairs = [EncodedPair(tokens(2, 20), (*tokens(1, 9), 258), (*tokens(1, 30), 258)) for _ in range(count - 1)]
    return [EncodedPair(tokens(1, 2), (7,), (8, 258)), *pairs]


KINDS = ("qwen2", "gemma2", "gpt2")
PLACES = (Site(1), Site(2), Site(3))
# further sites: two maps of one block, of one fused module (GPT-2), and the stream
MIXED = (Site(1, "self_attn.q_proj"), Site(1, "self_attn.v_proj"), Site(1), Site(3, "self_attn.o_proj"))
STREAM = (Site(1, "residual"), Site(2, "residual"))


def joint(
    model: Any, form: str = "lora", places: tuple[Site, ...] = PLACES, positions: Any = "all", seed: int = 1
) -> SteeringArtifact:
    """Noise at several places, joined."""
    return SteeringArtifact.joined(
        [noisy(model, form, s.component, s.layer, positions, seed=seed + i) for i, s in enumerate(places)]
    )


def one_by_one(model: Any, artifact: SteeringArtifact, ids: torch.Tensor, strengths: Any, mask: Any = None) -> Any:
    """Logits with every part attached on its own, at a strength of its own."""
    with ExitStack() as stack:
        for part, m in zip(artifact.parts, strengths, strict=True):
            stack.enter_context(part.attach(model, m))
        return logits(model, ids, mask)


TEXT_PAIRS = [
    PreferencePair("Was it good?", "Yes, I liked it.", "No."),
    PreferencePair("Say something.", "Sure!", "I would rather not say anything."),
    PreferencePair("And the food?", "Fine", "Cold and late"),
    PreferencePair("Why?", "because", "no idea at all"),
    PreferencePair("Would you return?", "of course", "never"),
]
