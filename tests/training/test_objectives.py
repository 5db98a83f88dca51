"""The objectives against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from easyedit_split.errors import ConfigError
from easyedit_split.training.objectives import (
    AnswerLosses,
    RepsObjective,
    SftObjective,
    SplitObjective,
    make_objective,
)


def _losses(
    wanted: list[float], unwanted: list[float], tokens: tuple[list[float], list[float]], reference: bool = False
) -> AnswerLosses:
    n, k = tokens
    given = [torch.tensor(v) for v in (wanted, unwanted, n, k)]
    more = [torch.tensor([6.0, 1.0]), torch.tensor([2.0, 8.0])] if reference else []
    return AnswerLosses(*given, *more)


TWO = ([2.0, 6.0], [6.0, 4.0], ([2.0, 3.0], [3.0, 4.0]))  # means: wanted 1, 2; unwanted 2, 1


def test_token_means() -> None:
    losses = _losses(*TWO)
    assert losses.wanted.tolist() == [1.0, 2.0]
    assert losses.unwanted.tolist() == [2.0, 1.0]


def test_sft_is_the_wanted_mean() -> None:
    assert SftObjective()(_losses(*TWO)).tolist() == [1.0, 2.0]


def test_split_by_hand() -> None:
    """Eqs. 18 to 20 with lambda_p 1, lambda_n 0.3, gamma 3.5, theta 0.6.

    Pair 0: margin L_n - L_p = 2 - 1 = 1 >= 0.6, hinge 0:   1 * 1 + 0.3 * 2         = 1.6
    Pair 1: margin 1 - 2 = -1, hinge 0.6 + 1 = 1.6:         1 * 2 + 0.3 * 1 + 3.5 * 1.6 = 7.9
    """
    found = SplitObjective(1.0, 0.3, 3.5, 0.6)(_losses(*TWO))
    assert found.tolist() == pytest.approx([1.6, 7.9], rel=1e-6)


def test_the_hinge_is_taken_per_pair() -> None:
    """On batch means the margin would be 0 for the two pairs together, and the hinge theta = 0.6, not 0.8."""
    hinge = SplitObjective(0.0, 0.0, 1.0, 0.6)(_losses(*TWO))
    assert hinge.mean() == pytest.approx(0.8)


def test_the_hinge_pushes_the_margin_until_theta_and_then_stops() -> None:
    """d loss / d L_p = lambda_p + gamma and d loss / d L_n = lambda_n - gamma below theta; lambda_p, lambda_n above."""
    objective = SplitObjective(1.0, 0.25, 2.0, 0.5)
    for margin, slopes in ((0.2, (3.0, -1.75)), (0.8, (1.0, 0.25))):
        wanted = torch.tensor([1.0], requires_grad=True)
        unwanted = torch.tensor([1.0 + margin], requires_grad=True)
        objective(AnswerLosses(wanted, unwanted, torch.ones(1), torch.ones(1))).sum().backward()
        assert wanted.grad is not None and unwanted.grad is not None
        assert (float(wanted.grad), float(unwanted.grad)) == slopes


def test_reps_by_hand() -> None:
    """`-log sigmoid(b * log p(y_w) / |y_w| - log p(y_l) / |y_l|)`, `b = max(log p_ref(y_l) - log p_ref(y_w), 1)`.

    Reference sums (negative log-probabilities): wanted 6, 1; unwanted 2, 8.
    Pair 0: b = max(-2 + 6, 1) = 4: argument 4 * (-1) + 2 = -2: loss log(1 + e^2).
    Pair 1: b = max(-8 + 1, 1) = 1: argument 1 * (-2) + 1 = -1: loss log(1 + e).
    """
    found = RepsObjective()(_losses(*TWO, reference=True))
    assert found.tolist() == pytest.approx([math.log1p(math.exp(2)), math.log1p(math.e)], rel=1e-6)


def test_reps_is_finite_at_extreme_losses() -> None:
    losses = AnswerLosses(*(torch.tensor([v]) for v in (1e5, 0.0, 1.0, 1.0, 1e4, 0.0)))
    assert bool(torch.isfinite(RepsObjective()(losses)).all())


def test_reps_without_its_reference_says_so() -> None:
    with pytest.raises(ConfigError, match="needs the unsteered model's losses"):
        RepsObjective()(_losses(*TWO))


def test_only_reps_asks_for_a_reference_and_ablates() -> None:
    asked = {o.name: (o.needs_reference, o.ablates_negative_vectors) for o in (SftObjective(), SplitObjective())}
    assert asked == {"sft": (False, False), "split": (False, False)}
    assert (RepsObjective().needs_reference, RepsObjective().ablates_negative_vectors) == (True, True)


@pytest.mark.parametrize("objective", [SftObjective(), SplitObjective(), RepsObjective()], ids=lambda o: o.name)
def test_an_objective_is_one_value_a_pair_and_does_not_mix_them(objective: object) -> None:
    whole = objective(_losses(*TWO, reference=True))  # type: ignore[operator]
    assert whole.shape == (2,)
    one = AnswerLosses(*(v[:1] for v in vars(_losses(*TWO, reference=True)).values()))
    assert torch.equal(objective(one), whole[:1])  # type: ignore[operator]


@pytest.mark.parametrize("field", ["lambda_p", "lambda_n", "gamma"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_weights_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} = {value} is out of range: give a number of 0 or more"):
        SplitObjective(**{field: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_theta_is_finite_and_may_be_negative(value: float) -> None:
    with pytest.raises(ConfigError, match="theta = .* is not finite"):
        SplitObjective(theta=value)
    assert SplitObjective(theta=-1.0).theta == -1.0


def test_objectives_by_name() -> None:
    assert make_objective("split", lambda_p=2.0) == SplitObjective(lambda_p=2.0)
    assert make_objective("sft") == SftObjective()
    for name, parameters, message in (
        ("spilt", {}, "unknown objective 'spilt'; did you mean 'split'"),
        ("split", {"lamda_p": 1.0}, "objective 'split' has no parameter 'lamda_p'; did you mean 'lambda_p'"),
        ("sft", {"gamma": 1.0}, "objective 'sft' has no parameter 'gamma'; it has none"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_objective(name, **parameters)
