"""The relative dose of a change: how large what it adds is, beside what it is added to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..changes.artifact import SteeringArtifact
from ..changes.at_site import AtSite
from ..changes.forms import parts_of
from ..models.guards import eval_mode_frozen
from ..models.parts import embedding_device
from ..models.protocols import CausalLM
from .forward import run_decoder


def relative_dose(
    model: CausalLM, artifact: SteeringArtifact, texts: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> float:
    """Mean of `|dh| / |h|` at the site, at m = 1 for `dW` and `db` alike: times `|m|` it is the dose of a strength m.

    `h` is the site's output in the unsteered model, `dh = dW x + db` what the change adds to it there (Eq. 4), both
    Euclidean lengths. The mean is over the positions from which the texts' tokens are predicted. Of several sites it is
    the largest. It does not say how much of the change later layers take up.

    Args:
        texts: token ids of a prompt and of what follows it.
    """
    sites = artifact.resolve_all(model)
    parts = [AtSite(part, site) for part, site in zip(parts_of(artifact.delta), sites, strict=True)]
    ratios: list[list[Tensor]] = [[] for _ in parts]
    first = 0

    def keep(number: int, inputs: tuple[Any, ...], output: Any) -> None:
        out = output if isinstance(output, Tensor) else output[0]
        x = inputs[0] if parts[number].delta.form != "vector" else out
        ratios[number].append(_ratio(parts[number], _rows(x)[first:], _rows(out)[first:]).cpu())

    hooks = [
        part.site.module.register_forward_hook(lambda _, inputs, output, n=number: keep(n, inputs, output))
        for number, part in enumerate(parts)
    ]
    try:
        with eval_mode_frozen(model), torch.no_grad():
            for prompt, answer in texts:
                first, tokens = len(prompt) - 1, torch.tensor([[*prompt, *answer[:-1]]])
                run_decoder(model, input_ids=tokens.to(embedding_device(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return max(float(torch.cat(found).double().mean()) for found in ratios)


def _rows(states: Tensor) -> Tensor:
    """One state a token, of the only row."""
    return states.reshape(-1, states.shape[-1])


def _ratio(part: AtSite, x: Tensor, out: Tensor) -> Tensor:
    linear, bias = part.terms(x, out)
    added = sum(term.float() for term in (linear, bias) if term is not None)
    own = out if part.site.rows is None else out.index_select(-1, part.site.rows.to(out.device))
    return torch.as_tensor(added).norm(dim=-1) / own.float().norm(dim=-1)
