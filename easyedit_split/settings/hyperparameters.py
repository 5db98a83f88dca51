"""Settings: the trainer's, and a run's in EasyEdit's field names (`files.py` reads them from YAML)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, nearest

DIRECTIONS = ("add", "sub")


@dataclass(frozen=True)
class TrainConfig:
    """How a change is trained.

    `steering_factors`: m is drawn from these for each pair. `directions`: `"add"` trains +m on (matching, not
    matching); `"sub"` adds the mirrored case, -m with the answers' roles exchanged. `positions`: see `positions.py`.
    `rank` is read by LoRA only. `weight_decay` is AdamW's. `dropout` acts on the change, in training only.

    Raises:
        ConfigError: a value out of its range.
    """

    n_epochs: int = 6
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    lr: float = 0.01
    weight_decay: float = 0.0
    dropout: float = 0.0
    steering_factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    directions: tuple[str, ...] = ("add",)
    rank: int = 4
    positions: str = "all"
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("steering_factors", "directions"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, (str, int, float)) else tuple(value))
        for name in ("n_epochs", "batch_size", "gradient_accumulation_steps", "rank"):
            _check(self, name, lambda v: isinstance(v, int) and v >= 1, "a whole number of 1 or more")
        _check(self, "seed", lambda v: isinstance(v, int) and 0 <= v < 2**63, "a whole number of 0 or more")
        _check(self, "lr", lambda v: _finite(v) and v > 0, "a number above 0")
        _check(self, "weight_decay", lambda v: _finite(v) and v >= 0, "a number of 0 or more")
        _check(self, "dropout", lambda v: _finite(v) and 0 <= v < 1, "a number from 0 to below 1")
        _check(self, "steering_factors", _steers, "one or more finite numbers, not all 0")
        _check(self, "directions", lambda v: v and set(v) <= set(DIRECTIONS), "'add', 'sub' or both")


def _check(config: Any, name: str, ok: Any, wanted: str) -> None:
    value = getattr(config, name)
    if not ok(value):
        raise ConfigError(f"{name} = {value!r} is out of range: give {wanted}")


def _steers(factors: Any) -> bool:
    return all(map(_finite, factors)) and any(factors)


def _finite(value: Any) -> bool:
    """A finite number, in float32 too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 3.4e38


_DIRECTION_OF = {"orig_add": "add", "orig_sub": "sub"}
COMPONENT_OF = {"mlp_mid": "mlp.down_proj"}
OBJECTIVE_OF = {
    "split": "split",
    "unified_sft": "sft",
    "unified_reps": "reps",
    "unified_diffmean": "diff_mean",
}


@dataclass(frozen=True)
class Hyperparameters:
    """One run, in EasyEdit's field names (the comment gives the paper's, or what it becomes here)."""

    alg_name: str = "split"
    layers: tuple[int, ...] = ()  # each trained alone, to an artifact of its own, as in EasyEdit
    joint: bool = False  # all layers trained together, to one artifact with one strength
    layer_share: float | None = None  # where no layers are named: the layer's place as a share of the depth
    intervention_method: str = "vector"  # form
    intervention_components: str | None = None  # component of the site; none: the residual stream
    pos_loss_weight: float = 1.0  # lambda_p
    neg_loss_weight: float = 0.3  # lambda_n
    margin_penalty_weight: float = 3.5  # gamma
    margin_threshold: float = 0.6  # theta
    steering_factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    preference_pairs: tuple[str, ...] = ("orig_add",)  # directions
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    lr: float = 0.01
    step_share: float | None = None  # lr by the activations' scale: see `training.suited`
    n_epochs: int = 6
    weight_decay: float = 0.0
    dropout: float = 0.0
    low_rank_dimension: int = 4  # rank
    exclude_bos: bool = False  # positions: after the template's prefix
    max_num_of_examples: int | None = None
    multipliers: tuple[float, ...] = ()  # m; empty: the strength that the change keeps
    concept_id: int | None = None
    seed: int = 42
    model_name_or_path: str = ""
    dtype: str = "float32"
    device: str = "cpu"
    device_map: Any = None
    use_chat_template: bool = True
    system_prompt: str = ""
    train_data: str = ""
    test_data: str = ""
    output_dir: str = ""
    overwrite: bool = False  # replace what output_dir holds of another run
    factors: tuple[float, ...] = ()  # the sweep's grid of m
    reduction: str = "sum"
    max_new_tokens: int = 64
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.alg_name not in OBJECTIVE_OF:
            raise ConfigError(
                f"{self._where()}alg_name {self.alg_name!r} is unknown{nearest(self.alg_name, OBJECTIVE_OF)}"
            )
        if self.objective_name == "diff_mean" and (self.intervention_method, self.component) != ("vector", "residual"):
            raise ConfigError(
                f"{self._where()}unified_diffmean makes a vector at the residual stream: "
                "set intervention_method: vector and leave intervention_components out"
            )
        for direction in self.preference_pairs:
            if direction not in _DIRECTION_OF:
                raise ConfigError(
                    f"{self._where()}preference_pairs holds {direction!r}{nearest(direction, _DIRECTION_OF)}"
                )
        for name in ("max_num_of_examples", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{self._where()}{name} = {value} is out of range: give a whole number of 1 or more")
        for name in ("layer_share", "step_share"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"{self._where()}{name} = {value:g} is out of range: give a share above 0, up to 1")
        if self.reduction not in ("sum", "mean"):
            raise ConfigError(f"{self._where()}reduction = {self.reduction!r} is unknown: give 'sum' or 'mean'")

    @property
    def objective_name(self) -> str:
        return OBJECTIVE_OF[self.alg_name]

    @property
    def layer_groups(self) -> tuple[tuple[int, ...], ...]:
        """The layers of each artifact that training makes."""
        if self.joint:
            return (self.layers,) if self.layers else ()
        return tuple((layer,) for layer in self.layers)

    @property
    def component(self) -> str:
        name = self.intervention_components
        if name is None:
            return "residual" if self.intervention_method == "vector" else "mlp.down_proj"
        return COMPONENT_OF.get(name, name)

    def train_config(self) -> TrainConfig:
        return TrainConfig(
            n_epochs=self.n_epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=self.weight_decay,
            gradient_accumulation_steps=self.gradient_accumulation_steps, dropout=self.dropout,
            steering_factors=self.steering_factors, rank=self.low_rank_dimension, seed=self.seed,
            directions=tuple(_DIRECTION_OF[d] for d in self.preference_pairs),
            positions="after_prefix" if self.exclude_bos else "all",
        )  # fmt: skip

    def objective_parameters(self) -> dict[str, float]:
        """The paper's names for the objective's numbers; empty for objectives that have none."""
        if self.objective_name != "split":
            return {}
        return {
            "lambda_p": self.pos_loss_weight, "lambda_n": self.neg_loss_weight,
            "gamma": self.margin_penalty_weight, "theta": self.margin_threshold,
        }  # fmt: skip

    def _where(self) -> str:
        return f"{self.source}: " if self.source else ""
