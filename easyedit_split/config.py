"""Settings: the trainer's, and a run's as read from an EasyEdit-style YAML file.

Files use EasyEdit's field names; `Hyperparameters` translates them into the paper's. An unknown key is an error that
names the nearest valid one. Both of EasyEdit's layouts are read: flat, and merged (`generate:` and `apply:` sections
over shared keys).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import ConfigError, nearest

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
        _check(self, "steering_factors", lambda v: v and all(map(_finite, v)), "one or more finite numbers")
        _check(self, "directions", lambda v: v and set(v) <= set(DIRECTIONS), "'add', 'sub' or both")


def _check(config: Any, name: str, ok: Any, wanted: str) -> None:
    value = getattr(config, name)
    if not ok(value):
        raise ConfigError(f"{name} = {value!r} is out of range: give {wanted}")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# EasyEdit keys that have no effect here, and the only value they may then have (None: any)
_NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "use_cache": None, "max_concepts": None, "output_length": None, "loss_output_dir": None, "vector_name": None,
    "save_vectors": None, "steering_prompt_type": None, "label_smoothing": (0, 0.0), "beta": None, "gemma": None,
    "simpo_scaler": None, "reference_free": (False,), "loss_type": ("scaled_simpo",), "sft_preference_type": None,
    "train_on_negative": None, "substraction_type": ("normal", "null_it_out"), "inference": (False,),
    "intervention_positions": ("all",), "intervention_positions_dropout": (0, 0.0),
    "intervention_type": ("addition",), "ref_loss_weight": (0, 0.0), "save_activations": None,
}  # fmt: skip
_DIRECTION_OF = {"orig_add": "add", "orig_sub": "sub"}
_COMPONENT_OF = {"mlp_mid": "mlp.down_proj"}
_OBJECTIVE_OF = {
    "split": "split",
    "unified_sft": "sft",
    "unified_reps": "reps",
    "unified_diffmean": "diff_mean",
}
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Hyperparameters:
    """One run, in EasyEdit's field names (the comment gives the paper's, or what it becomes here)."""

    alg_name: str = "split"
    layers: tuple[int, ...] = ()
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
    n_epochs: int = 6
    weight_decay: float = 0.0
    dropout: float = 0.0
    low_rank_dimension: int = 4  # rank
    exclude_bos: bool = False  # positions: after the template's prefix
    max_num_of_examples: int | None = None
    multipliers: tuple[float, ...] = (1.0,)  # m
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
    factors: tuple[float, ...] = ()  # the sweep's grid of m
    reduction: str = "sum"
    max_utility_drop: float = 1.0
    max_new_tokens: int = 64
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.alg_name not in _OBJECTIVE_OF:
            raise ConfigError(
                f"{self._where()}alg_name {self.alg_name!r} is unknown{nearest(self.alg_name, _OBJECTIVE_OF)}"
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
        if self.reduction not in ("sum", "mean"):
            raise ConfigError(f"{self._where()}reduction = {self.reduction!r} is unknown: give 'sum' or 'mean'")

    @property
    def objective_name(self) -> str:
        return _OBJECTIVE_OF[self.alg_name]

    @property
    def component(self) -> str:
        name = self.intervention_components
        if name is None:
            return "residual" if self.intervention_method == "vector" else "mlp.down_proj"
        return _COMPONENT_OF.get(name, name)

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


def load_hparams(
    path: str | Path, phase: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Hyperparameters:
    """Read a hyper-parameter file.

    Args:
        path: the YAML file.
        phase: `"generate"` or `"apply"`: the section of a merged file to lay over its shared keys; None: both.
        overrides: further keys, which win.

    Raises:
        ConfigError: no such file, not YAML, unknown keys (all of them are named), or values of the wrong kind.
    """
    values = flatten_sections(read_yaml(path), phase)
    values.update(overrides or {})
    return hyperparameters(values, str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping; a key given twice is an error (EasyEdit ships one such file)."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(k, deep=True) for k, _ in node.value]
            twice = next((k for k in keys if keys.count(k) > 1), None)
            if twice is not None:
                raise ConfigError(f"{path}: key {twice!r} is given twice: keep one")
            return super().construct_mapping(node, deep)

    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise ConfigError(f"{path} is not YAML: {reason}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__} where keys with values are needed")
    return data


def flatten_sections(data: dict[str, Any], phase: str | None) -> dict[str, Any]:
    """EasyEdit's merged layout as one mapping: shared keys, then the sections of `phase` (None: both)."""
    flat = {k: v for k, v in data.items() if k not in ("generate", "apply")}
    for section in ("generate", "apply"):
        content = data.get(section) or {}
        if not isinstance(content, dict):
            raise ConfigError(f"section {section!r} holds {content!r} where keys with values are needed")
        if phase in (None, section):
            flat.update(content)
    return flat


def hyperparameters(values: Mapping[str, Any], source: str = "") -> Hyperparameters:
    """Check and convert keys and values of a file. Raises `ConfigError`, naming every unknown key at once."""
    values = _renamed(dict(values), source)
    known = {f.name: f for f in fields(Hyperparameters) if f.name != "source"}
    unknown = [k for k in values if k not in known and k not in _NEUTRAL]
    if unknown:
        hints = " and ".join(f"{k!r}{nearest(str(k), [*known, *_NEUTRAL])}" for k in unknown)
        raise ConfigError(f"{source or 'hyper-parameters'}: unknown key {hints}")
    for key, allowed in _NEUTRAL.items():
        if key in values and allowed is not None and values[key] not in allowed:
            raise ConfigError(f"{source}: {key} = {values[key]!r} is not supported: remove it, or set {allowed[0]!r}")
    accepted = {k: _converted(k, v, str(known[k].type), source) for k, v in values.items() if k in known}
    return Hyperparameters(**accepted, source=source)


def _renamed(values: dict[str, Any], source: str) -> dict[str, Any]:
    """EasyEdit's slips and spellings, each with a warning where the meaning is a guess."""
    if "concepts_id" in values:
        warnings.warn(f"{source}: concepts_id is read as concept_id", stacklevel=4)
        values.setdefault("concept_id", values.pop("concepts_id"))
        values.pop("concepts_id", None)
    if values.get("intervention_method") == "weight":
        warnings.warn(f"{source}: intervention_method 'weight' is read as 'local_weight'", stacklevel=4)
        values["intervention_method"] = "local_weight"
    if values.pop("lora_alpha", None) is not None:
        warnings.warn(
            f"{source}: lora_alpha has no effect: dW = B A (Table 1), the strength is its scale", stacklevel=4
        )
    if values.get("dtype") in list(_DTYPES):
        values["dtype"] = _DTYPES[values["dtype"]]
    return values


def _converted(key: str, value: Any, kind: str, source: str) -> Any:
    if kind.startswith("tuple"):
        items = value if isinstance(value, (list, tuple)) else [value]
        inner = kind[len("tuple[") :].split(",")[0]
        return tuple(_converted(key, item, inner, source) for item in items)
    if value is None and ("None" in kind or kind == "Any"):
        return None
    wanted = kind.split(" ")[0]
    try:
        if wanted == "bool" and isinstance(value, bool) or wanted == "Any":
            return value
        if wanted == "int" and not isinstance(value, bool) and float(value) == int(float(value)):
            return int(float(value))
        if wanted == "float" and not isinstance(value, bool):
            return float(value)
        if wanted == "str" and isinstance(value, (str, int, float)):
            return str(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"{source or 'hyper-parameters'}: {key} = {value!r} is not of kind {wanted}")
