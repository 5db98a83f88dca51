"""Numbers under stress: losses of 1e4 nats and more, strengths of 1e6, half precision: defined, or said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS, logits, noisy
from tiny import random_delta, tiny_model, tiny_tokenizer, token_batch

from easyedit_split.analysis.logodds import pref_log_odds, util_log_odds
from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.attach import attach
from easyedit_split.changes.forms import make_delta
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import SteeringError, TrainingError
from easyedit_split.models.guards import eval_mode_frozen
from easyedit_split.models.sites import Site, resolve_site
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.sweeps.run import sweep
from easyedit_split.training import trainer as trainer_module
from easyedit_split.training.objectives import AnswerLosses, RepsObjective, SftObjective, SplitObjective
from easyedit_split.training.trainer import train


def big(wanted: float, unwanted: float, tokens: float = 10.0) -> AnswerLosses:
    sums = [torch.tensor([v], requires_grad=True) for v in (wanted, unwanted)]
    count = torch.tensor([tokens])
    return AnswerLosses(sums[0], sums[1], count, count, sums[0].detach(), sums[1].detach())


@pytest.mark.parametrize("objective", [SftObjective(), SplitObjective(), RepsObjective()], ids=lambda o: o.name)
@pytest.mark.parametrize(("wanted", "unwanted"), [(1e4, 1.0), (1.0, 1e4), (1e4, 1e4), (1e6, 1e6), (0.0, 0.0)])
def test_objectives_are_finite_with_their_gradients(objective: Any, wanted: float, unwanted: float) -> None:
    losses = big(wanted, unwanted)
    value = objective(losses)
    value.sum().backward()
    assert torch.isfinite(value).all()
    for leaf in (losses.wanted_sum, losses.unwanted_sum):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("l_p", [0.0, 1e-9, 1.0, 745.0, 1e4, 1e8])
@pytest.mark.parametrize("l_n", [1e-9, 1.0, 745.0, 1e4, 1e8])
def test_log_odds_of_huge_losses_by_high_precision(l_p: float, l_n: float) -> None:
    """Eqs. 7 and 8 against 60 digits; utility is NaN exactly where the two probabilities sum to 1 or more."""
    import mpmath

    with mpmath.workdps(60):
        p = mpmath.e ** (-mpmath.mpf(l_p)) + mpmath.e ** (-mpmath.mpf(l_n))
        expected = float(mpmath.log(p) - mpmath.log(1 - p)) if p < 1 else math.nan
    one = np.array([[l_p]]), np.array([[l_n]])
    assert pref_log_odds(*one)[0, 0] == l_n - l_p
    found = util_log_odds(*one)[0, 0]
    if math.isnan(expected):
        assert math.isnan(found)
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "gpt2"])
@pytest.mark.parametrize("form", ["vector", "lora", "local_weight"])
def test_strengths_of_a_million_in_float32(lend: Any, kind: str, form: str) -> None:
    """Norms bring everything back: the losses are finite, and so is every log-odds of the sums."""
    model = lend(kind)
    table = sweep(model, tiny_tokenizer(), TEXT_PAIRS, noisy(model, form), [-1e6, 0.0, 1e6], "sum")
    assert np.isfinite(table.loss_pos).all()
    assert np.isfinite(table.loss_neg).all()
    assert np.isfinite(table.preference()).all()
    undefined = np.isnan(table.utility())
    certain = np.logaddexp(-table.loss_pos, -table.loss_neg) >= 0
    assert (undefined == certain).all()


def test_losses_of_ten_thousand_nats() -> None:
    """A head made 3000 times as loud: sums above 1e4 nats, and still equal to a plain float64 computation."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(3000)
    artifact = noisy(model, "vector")
    table = sweep(model, tiny_tokenizer(), TEXT_PAIRS, artifact, [0.0, 2.0], "sum")
    assert table.loss_pos.max() > 1e4
    encoded = Encoder(tiny_tokenizer()).pairs(TEXT_PAIRS)
    for k, m in enumerate((0.0, 2.0)):
        with artifact.attach(model, m):
            for i, pair in enumerate(encoded):
                ids = torch.tensor([[*pair.prompt, *pair.matching]])
                log_p = logits(model, ids)[0].double().log_softmax(-1)
                at = torch.arange(len(pair.prompt) - 1, ids.shape[1] - 1)
                expected = -float(log_p[at, ids[0, at + 1]].sum())
                assert table.loss_pos[k, i] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [1e3, 1e6, 1e30])
def test_half_precision_overflow_is_said(dtype: torch.dtype, factor: float) -> None:
    """Whatever the dtype and the strength: finite losses, or an error that names the strength."""
    model = tiny_model("qwen2", dtype=dtype)
    try:
        table = sweep(model, tiny_tokenizer(), TEXT_PAIRS, noisy(model), [1.0, factor], "sum")
    except SteeringError as error:
        assert "not finite" in str(error)
        assert f"{factor:g}" in str(error)
        return
    assert np.isfinite(table.loss_pos).all()
    assert np.isfinite(table.loss_neg).all()


@pytest.mark.parametrize("factor", [1e6, 1e30])
def test_training_that_overflows_keeps_the_last_good_change(factor: float) -> None:
    """In float16 a strength this large overflows at once: an error with the change as it was, and that is finite."""
    model = tiny_model("qwen2", dtype=torch.float16)
    config = TrainConfig(n_epochs=3, batch_size=2, lr=1.0, steering_factors=(factor,))
    with pytest.raises(TrainingError, match="not finite") as caught:
        train(model, tiny_tokenizer(), TEXT_PAIRS, site=Site(1), form="local_weight", config=config)
    kept = caught.value.artifact
    assert isinstance(kept, SteeringArtifact)
    assert all(bool(t.isfinite().all()) for t in kept.delta.tensors().values())


def _gradient(dtype: torch.dtype, scales: tuple[float, ...], loudness: float, monkeypatch: Any) -> torch.Tensor:
    """The trainer's own gradient of its first step, before clipping does anything (its bound is out of reach)."""
    model = tiny_model("qwen2", dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(loudness)
    model.to(dtype)
    resolved = resolve_site(model, Site(1))
    delta = random_delta(make_delta("local_weight", resolved.d_in, resolved.d_out), 0.02).requires_grad_(True)
    monkeypatch.setattr(trainer_module, "FP16_LOSS_SCALES", scales)
    monkeypatch.setattr(trainer_module, "MAX_GRADIENT_NORM", 1e9)
    encoded = Encoder(tiny_tokenizer()).pairs(TEXT_PAIRS)
    with eval_mode_frozen(model), attach(model, delta, resolved, 0.0) as handle:
        loop = trainer_module._Loop(model, encoded, handle, SplitObjective(), TrainConfig())
        monkeypatch.setattr(loop.optimizer, "step", lambda: None)
        loop._step(0, None)  # type: ignore[arg-type]
    return torch.cat([p.grad.flatten() for p in delta.parameters()]).double()  # type: ignore[union-attr]


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_small_float16_gradients_do_not_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet head makes gradients near float16's smallest number. Float16 carries 11 bits: 2e-2 leaves room for the
    rounding of four layers; without the loss scale the same gradient is off by more than that."""
    scales = trainer_module.FP16_LOSS_SCALES
    expected = _gradient(torch.float32, (1.0,), 1e-4, monkeypatch)
    assert _relative_error(_gradient(torch.float16, scales, 1e-4, monkeypatch), expected) < 2e-2
    assert _relative_error(_gradient(torch.float16, (1.0,), 1e-4, monkeypatch), expected) > 2e-2


def test_large_float16_gradients_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loud head overflows at the first scale; the next one is taken, and nothing is raised."""
    scales = trainer_module.FP16_LOSS_SCALES
    expected = _gradient(torch.float32, (1.0,), 300.0, monkeypatch)
    with pytest.raises(TrainingError, match="gradient is not finite"):
        _gradient(torch.float16, scales[:1], 300.0, monkeypatch)
    assert _relative_error(_gradient(torch.float16, scales, 300.0, monkeypatch), expected) < 0.1


def test_hooked_strength_of_a_million_is_finite_everywhere(lend: Any) -> None:
    model = lend("llama")
    with noisy(model, "local_weight").attach(model, 1e6):
        assert torch.isfinite(logits(model, token_batch())).all()
