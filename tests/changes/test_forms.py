"""Law 1: a delta is `x @ dW.T + db` and nothing else."""

from __future__ import annotations

import pytest
import torch
from laws import assert_close
from tiny import random_delta
from torch import nn

from easyedit_split.changes.forms import FORMS, from_tensors, make_delta
from easyedit_split.errors import ConfigError


@pytest.mark.parametrize("form", FORMS)
def test_a_delta_is_its_dw_and_db(form: str) -> None:
    d_in, d_out = (7, 7) if form == "vector" else (5, 7)
    delta = random_delta(make_delta(form, d_in, d_out, rank=2))
    x = torch.randn(3, 4, d_in, generator=torch.Generator().manual_seed(0))
    dw, db = delta.weight(), delta.bias_term()
    dw = torch.zeros(d_out, d_in) if dw is None else dw
    db = torch.zeros(d_out) if db is None else db
    assert dw.shape == (d_out, d_in)
    assert db.shape == (d_out,)
    assert_close(delta(x), x @ dw.T + db)


@pytest.mark.parametrize(("form", "has_dw", "has_db"), [("vector", 0, 1), ("lora", 1, 0), ("local_weight", 1, 1)])
def test_each_form_has_the_terms_of_table_1(form: str, has_dw: bool, has_db: bool) -> None:
    delta = make_delta(form, 4, 4)
    assert (delta.weight() is not None) == bool(has_dw)
    assert (delta.bias_term() is not None) == bool(has_db)
    assert (delta.linear_term(torch.zeros(1, 4)) is not None) == bool(has_dw)


@pytest.mark.parametrize("form", FORMS)
def test_a_fresh_delta_changes_nothing(form: str) -> None:
    delta = make_delta(form, 6, 6, rank=2)
    assert torch.equal(delta(torch.randn(2, 3, 6)), torch.zeros(2, 3, 6))


def test_the_orientation_is_that_of_nn_linear() -> None:
    delta = random_delta(make_delta("local_weight", 3, 2))
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(delta.weight())
        linear.bias.copy_(delta.bias_term())
    x = torch.randn(5, 3)
    assert_close(delta(x), linear(x).detach())


def test_lora_stays_factored_and_starts_at_zero_with_a_live_gradient() -> None:
    delta = make_delta("lora", 64, 48, rank=2)
    assert {k: tuple(v.shape) for k, v in delta.tensors().items()} == {"A": (2, 64), "B": (48, 2)}
    assert torch.count_nonzero(delta.A) == delta.A.numel()
    assert delta.A.abs().max() <= 64**-0.5
    delta(torch.randn(3, 64)).sum().backward()
    assert torch.count_nonzero(delta.B.grad) > 0


def test_the_draw_of_lora_follows_its_generator() -> None:
    first, again, other = (make_delta("lora", 8, 8, 2, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.A, again.A)
    assert not torch.equal(first.A, other.A)


@pytest.mark.parametrize("form", FORMS)
def test_a_delta_knows_no_strength_and_carries_no_hook(form: str) -> None:
    delta = make_delta(form, 4, 4)
    assert not delta._forward_hooks and not delta._forward_pre_hooks
    assert not hasattr(delta, "m") and not hasattr(delta, "strength")


@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_float32_and_the_result_has_the_dtype_of_x(form: str) -> None:
    delta = random_delta(make_delta(form, 8, 8, rank=2))
    assert {p.dtype for p in delta.parameters()} == {torch.float32}
    x = torch.randn(2, 8).bfloat16()
    assert delta(x).dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: each of the two products and the sum rounds by up to 2^-9
    assert_close(delta(x).float(), delta(x.float()), 2**-6)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_round_trip(form: str) -> None:
    delta = random_delta(make_delta(form, 5, 6, rank=3) if form != "vector" else make_delta(form, 6, 6))
    back = from_tensors(form, delta.tensors())
    assert type(back) is type(delta)
    assert (back.d_in, back.d_out) == (delta.d_in, delta.d_out)
    assert all(torch.equal(v, back.tensors()[k]) for k, v in delta.tensors().items())


@pytest.mark.parametrize(
    ("form", "tensors", "message"),
    [
        ("vektor", {}, "did you mean 'vector'"),
        ("vector", {}, "needs the tensors db"),
        ("vector", {"db": torch.zeros(2, 2)}, "needs the tensors db"),
        ("vector", {"db": torch.zeros(2), "dW": torch.zeros(2, 2)}, "needs the tensors db"),
        ("lora", {"A": torch.zeros(2, 4), "B": torch.zeros(4, 3)}, r"\(4, 3\)"),
        ("local_weight", {"dW": torch.zeros(3, 4), "db": torch.zeros(4)}, r"\(4,\)"),
    ],
)
def test_tensors_that_contradict_the_form_are_refused(
    form: str, tensors: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        from_tensors(form, tensors)


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_that_does_not_fit_is_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match=rf"rank {rank} is out of range for a 8 x 4 map: choose 1 to 4"):
        make_delta("lora", 4, 8, rank)


def test_an_unknown_form_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown form 'local-weight'; did you mean 'local_weight'"):
        make_delta("local-weight", 4, 4)
