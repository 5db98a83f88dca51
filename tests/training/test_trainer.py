"""Law 7 and the training loop: reproducible, resumable, equal to the loop written out, and gone without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from laws import TEXT_PAIRS, assert_close
from tiny import MAIN, tiny_model

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import FORMS
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import ArtifactError, ConfigError, DataError, SiteError, TrainingError
from easyedit_split.models.sites import Site
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.training import trainer as trainer_module
from easyedit_split.training.objectives import AnswerLosses, RepsObjective, SftObjective, SplitObjective
from easyedit_split.training.trainer import Plan, in_roles, train

SHORT = TrainConfig(n_epochs=2, batch_size=2, lr=0.05, rank=2)


def _train(model: Any, tokenizer: Any, **options: Any) -> SteeringArtifact:
    settings = {"site": Site(1), "form": "local_weight", "config": SHORT, **options}
    return train(model, tokenizer, TEXT_PAIRS, **settings)


def _same(a: SteeringArtifact, b: SteeringArtifact) -> bool:
    return all(torch.equal(v, b.delta.tensors()[k]) for k, v in a.delta.tensors().items())


def _config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**vars(SHORT), **changes})


@pytest.mark.parametrize("kind", MAIN)
@pytest.mark.parametrize("form", FORMS)
def test_same_seed_same_artifact(lend: Any, tokenizer: Any, kind: str, form: str) -> None:
    model = lend(kind)
    config = _config(dropout=0.2, directions=("add", "sub"), gradient_accumulation_steps=2)
    torch.manual_seed(1)
    first = _train(model, tokenizer, form=form, config=config)
    torch.manual_seed(2)
    assert _same(first, _train(model, tokenizer, form=form, config=config))
    assert any(bool(t.abs().max() > 0) for t in first.delta.tensors().values())
    other = _config(**{**vars(config), "seed": 43})
    assert not _same(first, _train(model, tokenizer, form=form, config=other))


def test_training_leaves_torch_and_the_model_as_found(tokenizer: Any) -> None:
    """Train mode, `requires_grad`, gradients, hooks, weights, the random state."""
    model = tiny_model("gpt2").train()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    model.transformer.h[0].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    blocks = list(model.transformer.h)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    artifact = _train(model, tokenizer, site=Site(2), config=_config(dropout=0.3))
    assert torch.equal(torch.get_rng_state(), state)
    assert ([p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]) == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(a is b for a, b in zip(blocks, model.transformer.h, strict=True))
    assert not any(p.requires_grad for p in artifact.delta.parameters())
    assert {p.dtype for p in artifact.delta.parameters()} == {torch.float32}


def test_train_mode_and_eval_mode_train_the_same(tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    expected = _train(model, tokenizer)
    assert _same(expected, _train(model.train(), tokenizer))


# --- resuming -------------------------------------------------------------------------------------------------------


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("objective", [SplitObjective(), RepsObjective()], ids=lambda o: o.name)
@pytest.mark.parametrize("form", FORMS)
def test_resumed_is_uninterrupted(
    lend: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, objective: Any
) -> None:
    """Killed in the middle of a step, after a checkpoint a step earlier; with dropout and both directions."""
    model, path = lend("qwen2"), tmp_path / "checkpoint"
    config = _config(n_epochs=3, dropout=0.2, directions=("add", "sub"))
    options = {"form": form, "objective": objective, "config": config}
    expected = _train(model, tokenizer, **options)
    for kill_at in (1, 4, 8):
        real, calls = trainer_module._Loop._losses, []

        def losses(self: Any, draw: Any, real: Any = real, calls: Any = calls, at: int = kill_at) -> AnswerLosses:
            calls.append(1)
            if len(calls) > at:
                raise _Killed
            return real(self, draw)

        with monkeypatch.context() as patch:
            patch.setattr(trainer_module._Loop, "_losses", losses)
            with pytest.raises(_Killed):
                _train(model, tokenizer, checkpoint=path, checkpoint_seconds=0.0, **options)
        assert path.is_file()
        assert _same(_train(model, tokenizer, checkpoint=path, checkpoint_seconds=0.0, **options), expected)
        assert _same(_train(model, tokenizer, checkpoint=path, checkpoint_seconds=0.0, **options), expected)
        path.unlink()


def test_a_checkpoint_of_another_run_or_broken_is_refused(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    model, path = lend("qwen2"), tmp_path / "checkpoint"
    _train(model, tokenizer, checkpoint=path)
    whole = path.read_bytes()
    for options in ({"config": _config(lr=0.01)}, {"objective": SftObjective()}, {"site": Site(2)}, {"form": "lora"}):
        with pytest.raises(ArtifactError, match="is of another run .*overwrite=true"):
            _train(model, tokenizer, checkpoint=path, checkpoint_seconds=0.0, **options)
        assert path.read_bytes() == whole
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="is broken"):
        _train(model, tokenizer, checkpoint=path)
    assert list(tmp_path.iterdir()) == [path]


# --- the loop against itself written out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_accumulated_groups_are_one_big_batch(lend: Any, tokenizer: Any, kind: str) -> None:
    """Five pairs in groups of 2 x 2: the last group is one pair, not one of four slots.

    With batches of one the same pairs meet in the same groups, so the steps must agree to rounding.
    """
    model = lend(kind)
    big = _config(batch_size=4, gradient_accumulation_steps=1)
    for size in (1, 2):
        split = _config(batch_size=size, gradient_accumulation_steps=4 // size)
        a, b = _train(model, tokenizer, config=big), _train(model, tokenizer, config=split)
        for name, tensor in a.delta.tensors().items():
            # AdamW's first steps divide the gradient by its own size, which magnifies rounding where it is near 0
            assert_close(b.delta.tensors()[name], tensor, 1e-3)


def test_the_plan_shows_every_pair_once_an_epoch_in_each_direction() -> None:
    config = _config(directions=("add", "sub"), gradient_accumulation_steps=2, batch_size=2)
    plan = Plan(7, config)
    assert (plan.micro_batches, plan.steps_per_epoch, plan.steps) == (4, 2, 4)
    for epoch in range(2):
        draws = [d for step in range(2) for d in plan.draws(2 * epoch + step)]
        seen = sorted((int(p), int(s)) for d in draws for p, s in zip(d.pairs, d.signs, strict=True))
        assert seen == sorted((p, s) for p in range(7) for s in (1, -1))
        assert {float(m) for d in draws for m in d.strengths} <= {0.5, 1.0, 2.0}
        assert [len(d.pairs) for d in draws] == [4, 4, 4, 2]
    orders = [[int(p) for d in plan.draws(s) for p in d.pairs] for s in range(4)]
    assert orders[:2] != orders[2:]


def test_one_step_by_hand(tokenizer: Any) -> None:
    """One pair, one step of AdamW on the vector: each entry moves by `lr` against its gradient's sign.

    AdamW's first step is `lr * g / (|g| + eps)`; the gradient of `L_p` comes from plain autograd on full logits.
    """
    model = tiny_model("llama")
    pair = TEXT_PAIRS[:1]
    config = TrainConfig(n_epochs=1, batch_size=1, lr=0.01, steering_factors=(1.5,))
    found = train(model, tokenizer, pair, site=Site(1), form="vector", objective=SftObjective(), config=config)
    encoded = Encoder(tokenizer).pairs(pair)[0]
    bias = torch.zeros(32, requires_grad=True)
    hook = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda m, a, out: out + 1.5 * bias)
    out = model(input_ids=torch.tensor([[*encoded.prompt, *encoded.matching]])).logits[0]
    hook.remove()
    F.cross_entropy(out[len(encoded.prompt) - 1 : -1], torch.tensor(encoded.matching)).backward()
    assert bias.grad is not None
    g = bias.grad / max(1.0, float(bias.grad.norm()))
    assert_close(found.delta.tensors()["db"], -0.01 * g / (g.abs() + 1e-8), 1e-4)


def test_the_mirrored_direction_trains_minus_m_on_exchanged_answers(lend: Any, tokenizer: Any) -> None:
    """A linear dial: +m on (p, n) and -m on (n, p). Training `sub` alone on swapped pairs at -m is `add` at +(-m)."""
    model = lend("qwen2")
    mirrored = train(
        model, tokenizer, TEXT_PAIRS, site=Site(1), form="vector",
        config=_config(directions=("sub",), steering_factors=(1.5,)),
    )  # fmt: skip
    swapped = train(
        model, tokenizer, [p.swapped() for p in TEXT_PAIRS], site=Site(1), form="vector",
        config=_config(steering_factors=(-1.5,)),
    )  # fmt: skip
    assert_close(mirrored.delta.tensors()["db"], swapped.delta.tensors()["db"], 1e-3)


def test_roles_are_exchanged_under_a_negative_sign() -> None:
    from easyedit_split.scoring.scorer import PairLosses

    losses = PairLosses(*(torch.tensor(v) for v in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0])))
    found = in_roles(losses, torch.tensor([1.0, -1.0]), losses)
    assert found.wanted_sum.tolist() == [1.0, 4.0]
    assert found.unwanted_sum.tolist() == [3.0, 2.0]
    assert found.wanted_tokens.tolist() == [5.0, 8.0]
    assert found.unwanted_tokens.tolist() == [7.0, 6.0]
    assert found.reference_wanted_sum is not None and found.reference_wanted_sum.tolist() == [1.0, 4.0]
    assert found.reference_unwanted_sum is not None and found.reference_unwanted_sum.tolist() == [3.0, 2.0]


@pytest.mark.parametrize("objective", [SftObjective(), SplitObjective(), RepsObjective()], ids=lambda o: o.name)
@pytest.mark.parametrize("component", ["mlp.down_proj", "self_attn.q_proj", "residual"])
@pytest.mark.parametrize("kind", ["phi3", "gemma2"])
def test_training_raises_the_wanted_answers_probability(
    lend: Any, tokenizer: Any, kind: str, component: str, objective: Any
) -> None:
    """The vector form everywhere it fits, fused rows and ablation of RePS included: `L_p` at m = 1 falls."""
    from easyedit_split.sweeps.run import sweep

    model = lend(kind)
    config = _config(n_epochs=6, directions=("add", "sub") if objective.name == "reps" else ("add",))
    artifact = _train(model, tokenizer, site=Site(1, component), form="vector", objective=objective, config=config)
    table = sweep(model, tokenizer, TEXT_PAIRS, artifact, [0.0, 1.0], "mean")
    assert table.loss_pos[1].mean() < table.loss_pos[0].mean()


def test_a_bfloat16_model_trains_float32_parameters(tokenizer: Any) -> None:
    model = tiny_model("qwen2", dtype=torch.bfloat16)
    for form in FORMS:
        artifact = _train(model, tokenizer, form=form)
        assert {p.dtype for p in artifact.delta.parameters()} == {torch.float32}
        assert all(bool(torch.isfinite(t).all()) for t in artifact.delta.tensors().values())
    assert model.dtype == torch.bfloat16


# --- numbers that are not finite --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_step_m_and_pair(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third step's second pair is spoilt; the change of step two comes with the error."""
    model = tiny_model("qwen2")
    config = _config(directions=("sub",), steering_factors=(2.0,))
    plan = Plan(len(TEXT_PAIRS), config)
    seen: list[torch.Tensor] = []
    real = trainer_module._Loop._losses

    def losses(self: Any, draw: Any) -> AnswerLosses:
        found = real(self, draw)
        if torch.equal(draw.pairs, plan.draws(3)[0].pairs) and len(seen) == 3:
            found.wanted_sum[1] = float("nan")
        seen.append(self.delta.db.detach().clone())
        return found

    monkeypatch.setattr(trainer_module._Loop, "_losses", losses)
    pair = int(plan.draws(3)[0].pairs[1])
    with pytest.raises(TrainingError, match=rf"step 3: the loss of pair {pair} at m = -2 is not finite") as caught:
        _train(model, tokenizer, config=config)
    assert torch.equal(caught.value.artifact.delta.db, seen[-1])
    assert not caught.value.artifact.delta.db.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_is_not_a_number_fails_at_step_zero(tokenizer: Any) -> None:
    model = tiny_model("qwen2")
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="step 0: the loss of pair .* is not finite: lower lr"):
        _train(model, tokenizer)


def test_a_gradient_that_is_not_finite_is_caught_before_the_step(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("qwen2")
    real = trainer_module._Loop._losses

    def losses(self: Any, draw: Any) -> AnswerLosses:
        found = real(self, draw)
        found.wanted_sum.register_hook(lambda g: g * float("inf"))
        return found

    monkeypatch.setattr(trainer_module._Loop, "_losses", losses)
    with pytest.raises(TrainingError, match="step 0: the gradient is not finite") as caught:
        _train(model, tokenizer)
    assert not bool(caught.value.artifact.delta.db.any())


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"site": Site(4)}, SiteError, "layer 4 is out of range"),
        ({"site": Site(1, "residual")}, SiteError, "form 'local_weight' needs a linear map"),
        ({"form": "matrix"}, ConfigError, "unknown form 'matrix'"),
        ({"form": "lora", "config": TrainConfig(rank=33)}, ConfigError, "rank 33 is out of range for a 32 x 48 map"),
        ({"config": TrainConfig(positions="some")}, ConfigError, "unknown positions 'some'"),
    ],
)
def test_mistakes_are_named_before_training(
    lend: Any, tokenizer: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _train(lend("qwen2"), tokenizer, **options)


def test_pairs_that_are_none_or_too_long(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    with pytest.raises(DataError, match="there are no pairs"):
        train(model, tokenizer, [], site=Site(1), form="vector")
    long = PreferencePair("x" * 300, "yes", "no")
    with pytest.raises(DataError, match=r"pair 1 has \d+ tokens but the model's context is 256: shorten"):
        train(model, tokenizer, [TEXT_PAIRS[0], long], site=Site(1), form="vector")


def test_the_largest_seed_works(lend: Any, tokenizer: Any) -> None:
    _train(lend("qwen2"), tokenizer, form="vector", config=_config(n_epochs=1, seed=2**63 - 1))


@pytest.mark.parametrize("rule", ["answer", "after_prefix"])
def test_the_position_rule_is_trained_stored_and_applied(lend: Any, tokenizer: Any, tmp_path: Path, rule: str) -> None:
    model = lend("qwen2")
    artifact = _train(model, tokenizer, config=_config(positions=rule))
    assert artifact.positions.rule == rule
    # "<|im_start|>user\n" is one special token and five bytes
    assert artifact.positions.prefix == (6 if rule == "after_prefix" else 0)
    artifact.save(tmp_path)
    assert SteeringArtifact.load(tmp_path).positions == artifact.positions
    assert not _same(artifact, _train(model, tokenizer))


def test_a_batch_that_does_not_fit_is_one_sentence(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")

    def full(module: Any, args: Any) -> None:
        raise torch.OutOfMemoryError("too much")

    hook = model.model.layers[3].register_forward_pre_hook(full)
    try:
        with pytest.raises(TrainingError, match="batch of 3 pairs does not fit in memory: lower batch_size"):
            train(model, tokenizer, TEXT_PAIRS, site=Site(1), form="vector", config=TrainConfig(batch_size=3))
    finally:
        hook.remove()
