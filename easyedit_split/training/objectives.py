"""Training objectives: pure functions of the two answers' losses, one value a pair.

Losses are token means in nats (cross-entropy, Eq. 18). `AnswerLosses` carries the sums as well, for RePS's reference
scale. Nothing here knows about models, strengths or batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, nearest


@dataclass(frozen=True)
class AnswerLosses:
    """Losses of a batch of pairs, each `(B,)` float32, and the answers' lengths in tokens.

    `wanted` is the answer the steering should make likelier (matching under +m, not matching under -m).
    `reference_*` are the unsteered model's sums, without gradient; None unless the objective asks for them.
    """

    wanted_sum: Tensor
    unwanted_sum: Tensor
    wanted_tokens: Tensor
    unwanted_tokens: Tensor
    reference_wanted_sum: Tensor | None = None
    reference_unwanted_sum: Tensor | None = None

    @property
    def wanted(self) -> Tensor:
        """Token mean, nats."""
        return self.wanted_sum / self.wanted_tokens

    @property
    def unwanted(self) -> Tensor:
        """Token mean, nats."""
        return self.unwanted_sum / self.unwanted_tokens


class Objective(Protocol):
    """What the trainer needs of an objective."""

    @property
    def name(self) -> str: ...
    @property
    def needs_reference(self) -> bool: ...
    @property
    def ablates_negative_vectors(self) -> bool: ...
    def __call__(self, losses: AnswerLosses) -> Tensor: ...


@dataclass(frozen=True)
class SftObjective:
    """`L_p`: only the wanted answer counts."""

    name = "sft"
    needs_reference = False
    ablates_negative_vectors = False

    def __call__(self, losses: AnswerLosses) -> Tensor:
        """`(B,)` nats."""
        return losses.wanted


@dataclass(frozen=True)
class SplitObjective:
    """`lambda_p L_p + lambda_n L_n + gamma relu(theta - (L_n - L_p))` (Eqs. 18 to 20).

    The first two terms hold utility: both answers stay likely. The hinge, taken per pair and then averaged (EasyEdit
    takes it on batch means), raises preference until the margin `theta` (nats a token) is reached.
    """

    lambda_p: float = 1.0
    lambda_n: float = 0.3
    gamma: float = 3.5
    theta: float = 0.6
    name = "split"
    needs_reference = False
    ablates_negative_vectors = False

    def __post_init__(self) -> None:
        for field in ("lambda_p", "lambda_n", "gamma"):
            value = getattr(self, field)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{field} = {value} is out of range: give a number of 0 or more")
        if not abs(self.theta) < float("inf"):
            raise ConfigError(f"theta = {self.theta} is not finite: give a margin in nats a token")

    def __call__(self, losses: AnswerLosses) -> Tensor:
        """`(B,)` nats."""
        wanted, unwanted = losses.wanted, losses.unwanted
        margin = F.relu(self.theta - (unwanted - wanted))
        return self.lambda_p * wanted + self.lambda_n * unwanted + self.gamma * margin


@dataclass(frozen=True)
class RepsObjective:
    """Reference-scaled preference loss (Wu et al., 2025).

    `-log sigmoid((b / |y_w|) log p(y_w) - (1 / |y_l|) log p(y_l))` with
    `b = max(log p_ref(y_l) - log p_ref(y_w), 1)`, y_w the wanted answer. Under negative steering the vector form
    ablates its direction instead of scaling it.
    """

    name = "reps"
    needs_reference = True
    ablates_negative_vectors = True

    def __call__(self, losses: AnswerLosses) -> Tensor:
        """`(B,)` nats.

        Raises:
            ConfigError: the reference losses are missing.
        """
        if losses.reference_wanted_sum is None or losses.reference_unwanted_sum is None:
            raise ConfigError("the reps objective needs the unsteered model's losses: pass reference_wanted_sum too")
        scale = (losses.reference_wanted_sum - losses.reference_unwanted_sum).clamp_min(1.0)
        return -F.logsigmoid(losses.unwanted - scale * losses.wanted)


OBJECTIVES: dict[str, Any] = {"sft": SftObjective, "reps": RepsObjective, "split": SplitObjective}


def make_objective(name: str, **parameters: float) -> Objective:
    """An objective by name; `parameters` are those of its dataclass.

    Raises:
        ConfigError: unknown name or parameter.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"unknown objective {name!r}{nearest(name, OBJECTIVES)}")
    fields = getattr(OBJECTIVES[name], "__dataclass_fields__", {})
    for parameter in parameters:
        if parameter not in fields:
            hint = nearest(parameter, fields) if fields else "; it has none"
            raise ConfigError(f"objective {name!r} has no parameter {parameter!r}{hint}")
    return OBJECTIVES[name](**parameters)
