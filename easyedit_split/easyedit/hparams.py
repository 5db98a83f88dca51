"""EasyEdit's hyper-parameters of our methods: mutable shells with EasyEdit's own field names and defaults.

EasyEdit fills a dataclass from the method's file and its own config, and writes into it afterwards.
So these are plain and mutable; `frozen` turns them into the package's own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..settings.files import hyperparameters
from ..settings.hyperparameters import Hyperparameters


@dataclass
class TrainShell:
    """Fields of a `generate` file for every method. Defaults are those of EasyEdit's `spilt`."""

    alg_name: str = "split"
    layers: list[int] = field(default_factory=list)
    joint: bool = False
    intervention_method: str = "vector"
    intervention_components: str | None = None
    hparams_file: str | None = None

    steer_train_dataset: Any = None
    steer_vector_output_dir: str = "../"
    save_vectors: bool = True
    exclude_bos: bool = True
    max_concepts: int | None = None
    max_num_of_examples: int | None = None
    output_length: int | None = None
    preference_pairs: list[str] = field(default_factory=lambda: ["orig_add", "orig_sub"])

    batch_size: int = 2
    gradient_accumulation_steps: int = 6
    n_epochs: int = 12
    lr: float = 0.08
    weight_decay: float = 0.0
    dropout: float = 0.1
    low_rank_dimension: int = 4
    lora_alpha: float | None = None
    steering_factors: list[float] = field(default_factory=lambda: [2.0, 4.0, 6.0, 8.0, 10.0])

    loss_output_dir: str | None = None
    inference: bool = False
    all_labels: bool = False
    intervention_positions: str = "all"
    intervention_positions_dropout: float = 0.0
    intervention_type: str = "addition"
    steering_prompt_type: str = "blend_in"
    substraction_type: str = "normal"


@dataclass
class WeightedTrainShell(TrainShell):
    """`split` and `unified_sft`: EasyEdit's names for lambda_p, lambda_n, gamma and theta (Eqs. 18 to 20)."""

    pos_loss_weight: float = 1.0
    neg_loss_weight: float = 0.0
    margin_penalty_weight: float = 0.0
    margin_threshold: float = 0.5
    ref_loss_weight: float = 0.0


@dataclass
class RepsTrainShell(TrainShell):
    """`unified_reps`: the names of EasyEdit's `reps` for what the objective fixes."""

    loss_type: str = "scaled_simpo"
    simpo_scaler: float = 1.0
    beta: float = 1.0
    gemma: float = 0.0
    label_smoothing: float = 0.0
    reference_free: bool = False
    train_on_negative: bool = True


@dataclass
class ApplyShell:
    """Fields of an `apply` file. The form comes from what was trained; naming it is a check. Without `multipliers` a
    change, of one layer or of several that are all named, is applied at the strength it keeps."""

    alg_name: str = "split"
    layers: list[int] = field(default_factory=list)
    intervention_method: str | None = None
    intervention_components: str | None = None
    hparams_file: str | None = None
    multipliers: list[float] = field(default_factory=list)
    steer_vector_load_dir: str | None = None
    concept_id: int = 0


TRAIN_SHELLS: dict[str, type] = {
    "split": WeightedTrainShell,
    "unified_sft": WeightedTrainShell,
    "unified_reps": RepsTrainShell,
    "unified_diffmean": TrainShell,
}


_HOST_ONLY = frozenset(
    ["hparams_file", "steer_train_dataset", "steer_vector_output_dir", "steer_vector_load_dir", "all_labels"]
)
_GENERAL = ("seed", "use_chat_template", "system_prompt")


def frozen(shell: Any) -> Hyperparameters:
    """The package's own, checked configuration with the values of `shell`.

    Raises:
        ConfigError: a value is out of range or asks for something this package does not do; the file is named.
    """
    own = ApplyShell if isinstance(shell, ApplyShell) else TRAIN_SHELLS[shell.alg_name]
    names = [f.name for f in fields(own) if f.name not in _HOST_ONLY]
    names += [name for name in _GENERAL if hasattr(shell, name)]
    values = {name: getattr(shell, name) for name in names if getattr(shell, name) is not None}
    return hyperparameters(values, getattr(shell, "hparams_file", None) or f"the {shell.alg_name} hyper-parameters")


def shell_classes(base: type, name: str) -> dict[str, type]:
    """The two dataclasses EasyEdit fills for method `name`: ours on top of its own `HyperParams` class `base`."""
    return {
        "train": _combine(base, TRAIN_SHELLS[name], name, "Train"),
        "apply": _combine(base, ApplyShell, name, "Apply"),
    }


def _combine(base: type, own: type, name: str, phase: str) -> type:
    title = "".join(word.capitalize() for word in name.split("_"))
    members = {"__annotations__": {"alg_name": "str"}, "alg_name": name, "__module__": __name__}
    combined = type(f"{title}{phase}HyperParams", (own, base), members)
    return dataclass(combined)
