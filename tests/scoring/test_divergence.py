"""KL from the unsteered model and the relative dose, against what they are by definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from laws import FORMS_AND_COMPONENTS, noisy
from tiny import MAIN

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.scoring import divergence
from easyedit_split.scoring.divergence import kl_from_unsteered
from easyedit_split.scoring.dose import relative_dose

TEXTS = [([1, 2, 3, 4], [5, 6, 7]), ([9], [8]), ([20, 21], [30, 31, 32, 33, 34])]
STRENGTHS = [-2.0, 0.0, 1.0, 4.0]


def _naive(model: Any, artifact: Any, m: float) -> float:
    """From the model's own logits, a text at a time."""
    total, tokens = 0.0, 0
    for prompt, answer in TEXTS:
        ids = torch.tensor([[*prompt, *answer[:-1]]])
        with torch.no_grad():
            plain = model(input_ids=ids).logits[0, len(prompt) - 1 :].double().log_softmax(-1)
            first = len(prompt) - 1 if artifact.positions.rule == "answer" else 0
            with artifact.attach(model, m) as handle, handle.steer_only(torch.arange(ids.shape[1])[None] >= first):
                steered = model(input_ids=ids).logits[0, len(prompt) - 1 :].double().log_softmax(-1)
        total += float((plain.exp() * (plain - steered)).sum())
        tokens += len(answer)
    return total / tokens


@pytest.mark.parametrize("kind", MAIN)
@pytest.mark.parametrize("positions", ["all", "answer"])
def test_divergence_is_that_of_the_models_own_logits(lend: Any, kind: str, positions: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(divergence, "STEP", 3)  # the last batch is a single strength
    model = lend(kind)
    artifact, told = noisy(model, "lora", positions=positions, scale=0.5), []
    with artifact.attach(model, 0.0) as handle:
        found = kl_from_unsteered(model, TEXTS, handle, STRENGTHS, told.append)
    np.testing.assert_allclose(found, [_naive(model, artifact, m) for m in STRENGTHS], rtol=2e-4, atol=1e-6)
    assert found[1] == pytest.approx(0, abs=1e-6) and (found[[0, 2, 3]] > 1e-3).all()
    assert sum(told) == len(TEXTS) * len(STRENGTHS)


@pytest.mark.parametrize("kind", MAIN)
@pytest.mark.parametrize(("form", "component"), FORMS_AND_COMPONENTS)
def test_dose_is_what_the_change_adds_beside_what_it_is_added_to(
    lend: Any, kind: str, form: str, component: str
) -> None:
    """Once more with hooks of the test's own: the site's output steered and not, their difference over the latter."""
    model = lend(kind)
    artifact = noisy(model, form, component)
    site = artifact.resolve(model)
    ratios = []
    for prompt, answer in TEXTS:
        ids, seen = torch.tensor([[*prompt, *answer[:-1]]]), []
        for m in (0.0, 1.0):
            with torch.no_grad(), artifact.attach(model, m):  # the test's hook comes after the change's
                hook = site.module.register_forward_hook(
                    lambda _, __, out, seen=seen: seen.append((out[0] if isinstance(out, tuple) else out).clone())
                )
                model(input_ids=ids)
                hook.remove()
        plain, steered = (out[0, len(prompt) - 1 :] for out in seen)
        if site.rows is not None:
            plain, steered = plain[:, site.rows], steered[:, site.rows]
        ratios.append((steered - plain).norm(dim=-1) / plain.norm(dim=-1))
    assert relative_dose(model, artifact, TEXTS) == pytest.approx(float(torch.cat(ratios).mean()), rel=1e-4)


def test_of_several_sites_it_is_the_largest(lend: Any) -> None:
    model = lend("qwen2")
    one, two = noisy(model, layer=1, scale=0.1), noisy(model, layer=2, scale=0.4, seed=3)
    doses = [relative_dose(model, part, TEXTS) for part in (one, two)]
    assert relative_dose(model, SteeringArtifact.joined([one, two]), TEXTS) == pytest.approx(max(doses), rel=1e-6)
    assert doses[0] != pytest.approx(doses[1])


def test_the_model_is_left_as_it_was(lend: Any) -> None:
    model = lend("qwen2")
    hooks = [len(module._forward_hooks) for module in model.modules()]
    relative_dose(model, noisy(model), TEXTS)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
