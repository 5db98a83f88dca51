"""Our `sft` and `reps` against EasyEdit's own trainers of that name: same texts, same change, losses and gradients.

Run by test_easyedit.py like checks.py. EasyEdit adds every change at the block's output. So a vector is compared at
the residual stream, on Qwen2's and Gemma-2's shapes; LoRA and local weight on Qwen2's, where that output and the
linear layer's agree. Where EasyEdit departs from the published RePS (Wu et al., 2025), a test of its own measures by
how much, and the comparison is made with that one departure undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from host.inside import (
    FACTOR,
    FORMS,
    artifact,
    host_module,
    logged,
    upstream_shell,
    upstream_texts,
    upstream_training,
)
from host.models import items
from torch import Tensor

from easyedit_split.changes import at_site
from easyedit_split.changes.attach import attach
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import EncodedPair, Encoder
from easyedit_split.easyedit import register
from easyedit_split.easyedit.host import plain_model
from easyedit_split.models.guards import eval_mode_frozen
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.training.objectives import AnswerLosses, Objective, RepsObjective, SftObjective
from easyedit_split.training.plan import Draw
from easyedit_split.training.trainer import _Loop

register()

CASES = [
    pytest.param("tiny-qwen2", "vector", id="qwen2-vector"),
    pytest.param("tiny-qwen2", "lora", id="qwen2-lora"),
    pytest.param("tiny-qwen2", "local_weight", id="qwen2-local_weight"),
    pytest.param("tiny-gemma2", "vector", id="gemma2-vector"),
]
DIRECTIONS = {"add": (1.0,), "sub": (-1.0,), "both": (1.0, -1.0)}
SEED = 3  # a vector whose projection has both signs among the tokens, on both shapes
WEIGHTS = [case for case in CASES if case.values[1] != "vector"]
each_case = pytest.mark.parametrize(("wrapper", "form"), CASES, indirect=["wrapper"])
each_weight = pytest.mark.parametrize(("wrapper", "form"), WEIGHTS, indirect=["wrapper"])
each_vector = pytest.mark.parametrize("wrapper", ["tiny-qwen2", "tiny-gemma2"], indirect=True)
each_direction = pytest.mark.parametrize("direction", DIRECTIONS)

Answer = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """Losses of the pairs by the tokens of the answer wanted, and the gradient of their mean."""

    losses: dict[Answer, float]
    gradients: dict[str, Tensor]

    def values(self) -> Tensor:
        """In the order of the answers."""
        return torch.tensor([self.losses[answer] for answer in sorted(self.losses)])


def agree(ours: Step, theirs: Step) -> bool:
    """To 1e-5 of each loss, and of the gradient's norm: two orders of the same float32 sums."""
    same_losses = ours.losses.keys() == theirs.losses.keys() and torch.allclose(
        ours.values(), theirs.values(), rtol=1e-5, atol=0
    )
    return same_losses and all(
        float((ours.gradients[name] - theirs.gradients[name]).norm()) <= 1e-5 * float(ours.gradients[name].norm())
        for name in ours.gradients
    )


def change_of(wrapper: Any, form: str) -> Any:
    return artifact(wrapper.model, form, seed=SEED, component="residual" if form == "vector" else "mlp.down_proj")


def encoded(wrapper: Any) -> list[EncodedPair]:
    return Encoder(wrapper.tokenizer).pairs(PreferencePair(**item) for item in items())


def wanted_answers(pairs: list[EncodedPair], direction: str) -> list[Answer]:
    return [pair.matching if sign > 0 else pair.not_matching for pair in pairs for sign in DIRECTIONS[direction]]


def preference_pairs(direction: str) -> list[str]:
    return ["orig_add" if sign > 0 else "orig_sub" for sign in DIRECTIONS[direction]]


def our_losses(wrapper: Any, change: Any, objective: Objective, direction: str) -> AnswerLosses:
    """What our trainer hands to the objective, every pair at once; differentiable in the change."""
    pairs, signs = encoded(wrapper), torch.tensor(DIRECTIONS[direction])
    rows = torch.arange(len(pairs)).repeat_interleave(len(signs))
    draw = Draw(rows, signs.repeat(len(pairs)), torch.full(rows.shape, FACTOR))
    with (
        plain_model(wrapper) as model,
        eval_mode_frozen(model),
        attach(model, change.delta, change.site, 0.0) as handle,
    ):
        loop = _Loop(model, pairs, handle, objective, TrainConfig(batch_size=len(pairs)))
        loop.reference = loop._unsteered() if objective.needs_reference else None
        return loop._losses(draw)


def our_step(
    wrapper: Any,
    change: Any,
    objective: Objective,
    direction: str,
    altered: Callable[[AnswerLosses], AnswerLosses] = lambda losses: losses,
) -> Step:
    change.delta.requires_grad_(True).zero_grad()
    values = objective(altered(our_losses(wrapper, change, objective, direction)))
    values.mean().backward()
    gradients = {name: parameter.grad for name, parameter in change.delta.named_parameters()}
    change.delta.requires_grad_(False)
    return Step(dict(zip(wanted_answers(encoded(wrapper), direction), values.tolist(), strict=True)), gradients)


# --- SFT ------------------------------------------------------------------------------------------------------------


def sft_shell(form: str, tmp_path: Path, direction: str = "add", **values: Any) -> Any:
    """EasyEdit's own `sft` as it is by default: the wanted answer's loss alone."""
    more = {"lr": 0.0, "preference_pairs": preference_pairs(direction), "loss_output_dir": str(tmp_path), **values}
    return upstream_shell("sft", form, tmp_path, **more)


@each_direction
@each_case
def test_sft_losses_and_gradients(wrapper: Any, form: str, direction: str, tmp_path: Path) -> None:
    change = change_of(wrapper, form)
    ours = our_step(wrapper, change, SftObjective(), direction)
    texts, pairs = upstream_texts(Encoder(wrapper.tokenizer)), encoded(wrapper)
    losses, total = {}, {name: torch.zeros_like(value) for name, value in ours.gradients.items()}
    for number, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = upstream_training(wrapper, change.delta, sft_shell(form, folder, direction), [text])
        for answer, row in zip(wanted_answers([pair], direction), logged(folder), strict=True):
            losses[answer] = float(row["pos_steer_loss"])
        for name in total:
            total[name] += found[name] / len(texts)
    assert agree(ours, Step(losses, total))


@pytest.mark.parametrize("form", FORMS)
def test_sft_of_easyedit_weighs_pairs_by_their_tokens(wrapper: Any, form: str, tmp_path: Path) -> None:
    """A batch's loss is the mean over all its tokens, so long answers count more; ours is the mean over pairs."""
    change = change_of(wrapper, form)
    texts = upstream_texts(Encoder(wrapper.tokenizer))
    upstream_training(wrapper, change.delta, sft_shell(form, tmp_path, batch_size=len(texts)), texts)
    theirs = float(logged(tmp_path)[0]["pos_steer_loss"])
    ours = our_losses(wrapper, change, SftObjective(), "add")
    assert theirs == pytest.approx(float(ours.wanted_sum.sum() / ours.wanted_tokens.sum()), rel=1e-5)
    assert abs(theirs - float(ours.wanted.mean())) > 0.01


# --- RePS -----------------------------------------------------------------------------------------------------------


class Watched:
    """EasyEdit's `preference_loss`, watched: the loss of each row, by the tokens of the answer wanted.

    With `answer_lengths` it is given the answers' lengths in place of those of the whole rows.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer_lengths: bool) -> None:
        self.module = host_module("steer.trainer.PreferenceModelTrainer")
        self.real = self.module._get_batch_logps, self.module.preference_loss
        self.answer_lengths = answer_lengths
        self.losses: dict[Answer, float] = {}
        monkeypatch.setattr(self.module, "_get_batch_logps", self._logps)
        monkeypatch.setattr(self.module, "preference_loss", self._loss)

    def _logps(self, logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
        self.labels = labels[:, 1:]
        return self.real[0](logits, labels, **options)

    def _loss(self, *logps: Tensor, **options: Any) -> Any:
        learnt = self.labels != -100
        if self.answer_lengths:
            options["winning_lens"], options["losing_lens"] = learnt.sum(-1).chunk(2)
        found = self.real[1](*logps, **options)
        for row, value in enumerate(found[0].tolist()):
            self.losses[tuple(self.labels[row][learnt[row]].tolist())] = value
        return found


class WithoutRelu(ModuleType):
    """torch as EasyEdit's interventions see it, its `relu` doing nothing: the projection is ablated everywhere."""

    def __getattr__(self, name: str) -> Any:
        return (lambda x: x) if name == "relu" else getattr(torch, name)


def ablate_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module("steer.models.interventions"), "torch", WithoutRelu("torch"))


def upstream_reps(
    wrapper: Any, change: Any, tmp_path: Path, watched: Watched, direction: str, subtraction: str | None = None
) -> Step:
    """EasyEdit's RePS on one batch of all pairs; negative steering as its files for each form have it."""
    form = change.delta.form
    texts = upstream_texts(Encoder(wrapper.tokenizer))
    subtraction = subtraction or ("null_it_out" if form == "vector" else "normal")
    hparams = upstream_shell(
        "reps", form, tmp_path, lr=0.0, batch_size=len(texts), preference_pairs=preference_pairs(direction),
        substraction_type=subtraction,
    )  # fmt: skip
    gradients = upstream_training(wrapper, change.delta, hparams, texts)
    return Step(dict(watched.losses), gradients)


@each_direction
@each_case
def test_reps_losses_and_gradients(
    wrapper: Any, form: str, direction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published loss in both: |y| is the answer's length, a negative vector ablates its direction everywhere."""
    change = change_of(wrapper, form)
    ours = our_step(wrapper, change, RepsObjective(), direction)
    ablate_everywhere(monkeypatch)
    theirs = upstream_reps(wrapper, change, tmp_path, Watched(monkeypatch, answer_lengths=True), direction)
    assert agree(ours, theirs)


@each_direction
@each_vector
def test_reps_is_compared_where_its_reference_scale_and_its_curve_matter(wrapper: Any, direction: str) -> None:
    """Scales both at the bound of 1 and above it: else the comparison would say nothing about them."""
    losses = our_losses(wrapper, change_of(wrapper, "vector"), RepsObjective(), direction)
    assert losses.reference_wanted_sum is not None and losses.reference_unwanted_sum is not None
    scales = losses.reference_wanted_sum - losses.reference_unwanted_sum
    assert not losses.reference_wanted_sum.requires_grad
    assert bool((scales > 2).any()) and bool((scales < 0).any())


@each_case
def test_reps_of_easyedit_divides_by_prompt_and_answer(
    wrapper: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its |y| is the length of the whole row. Ours with those lengths is its loss, and the published one is not."""
    prompts = torch.tensor([float(len(pair.prompt)) for pair in encoded(wrapper)]).repeat_interleave(2)

    def whole_rows(losses: AnswerLosses) -> AnswerLosses:
        return replace(
            losses, wanted_tokens=losses.wanted_tokens + prompts, unwanted_tokens=losses.unwanted_tokens + prompts
        )

    change = change_of(wrapper, form)
    published = our_step(wrapper, change, RepsObjective(), "both")
    ours = our_step(wrapper, change, RepsObjective(), "both", whole_rows)
    ablate_everywhere(monkeypatch)
    theirs = upstream_reps(wrapper, change, tmp_path, Watched(monkeypatch, answer_lengths=False), "both")
    assert agree(ours, theirs)
    assert float((theirs.values() / published.values() - 1).abs().max()) > 0.5


@each_vector
def test_reps_of_easyedit_ablates_only_where_the_projection_is_positive(
    wrapper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `null_it_out` takes the component along the vector away where it is positive and leaves it elsewhere."""

    def where_positive(h: Tensor, direction: Tensor) -> Tensor:
        along = (h @ direction).clamp_min(0) / direction.square().sum()
        return h - along.unsqueeze(-1) * direction

    change = change_of(wrapper, "vector")
    published = our_step(wrapper, change, RepsObjective(), "sub")
    monkeypatch.setattr(at_site, "ablate_direction", where_positive)
    ours = our_step(wrapper, change, RepsObjective(), "sub")
    theirs = upstream_reps(wrapper, change, tmp_path, Watched(monkeypatch, answer_lengths=True), "sub")
    assert agree(ours, theirs)
    assert float((theirs.values() / published.values() - 1).abs().max()) > 1e-3


@each_weight
def test_null_it_out_leaves_weights_without_a_gradient(
    wrapper: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EasyEdit's default means factor 0 for LoRA and local weight: unsteered, and nothing is learnt."""
    change = change_of(wrapper, form)
    watched = Watched(monkeypatch, answer_lengths=True)
    theirs = upstream_reps(wrapper, change, tmp_path, watched, "sub", subtraction="null_it_out")
    assert all(float(gradient.abs().max()) == 0.0 for gradient in theirs.gradients.values())
    ours = our_step(wrapper, change, RepsObjective(), "sub")
    assert float((theirs.values() / ours.values() - 1).abs().max()) > 1e-2
