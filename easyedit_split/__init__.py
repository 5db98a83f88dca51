"""Steering as a dial on a trained change of one affine map, `h' = (W + m1 dW) h + (b + m2 db)`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .lazy import lazy_names

__version__ = "0.2.0"

_WHERE = {
    "PreferencePair": "data.pairs", "load_pairs": "data.pairs", "flat_pairs": "data.pairs",
    "Site": "models.sites", "COMPONENTS": "models.sites", "FORMS": "changes.forms",
    "TrainConfig": "settings.hyperparameters", "Hyperparameters": "settings.hyperparameters",
    "load_hparams": "settings.files",
    "SplitObjective": "training.objectives", "SftObjective": "training.objectives",
    "RepsObjective": "training.objectives", "train": "training.trainer", "diff_mean": "training.diff_mean",
    "SteeringArtifact": "changes.artifact", "load": "changes.artifact",
    "sweep": "sweeps.run", "SweepTable": "sweeps.table", "generate": "generation", "load_model": "models.loading",
    "register": "easyedit", "SteeringError": "errors",
}  # fmt: skip
_MODULES = ("analysis", "errors")

if TYPE_CHECKING:
    from . import analysis as analysis
    from . import errors as errors
    from .changes.artifact import SteeringArtifact as SteeringArtifact
    from .changes.artifact import load as load
    from .changes.forms import FORMS as FORMS
    from .data.pairs import PreferencePair as PreferencePair
    from .data.pairs import flat_pairs as flat_pairs
    from .data.pairs import load_pairs as load_pairs
    from .easyedit import register as register
    from .errors import SteeringError as SteeringError
    from .generation import generate as generate
    from .models.architectures import COMPONENTS as COMPONENTS
    from .models.loading import load_model as load_model
    from .models.sites import Site as Site
    from .settings.files import load_hparams as load_hparams
    from .settings.hyperparameters import Hyperparameters as Hyperparameters
    from .settings.hyperparameters import TrainConfig as TrainConfig
    from .sweeps.run import sweep as sweep
    from .sweeps.table import SweepTable as SweepTable
    from .training.diff_mean import diff_mean as diff_mean
    from .training.objectives import RepsObjective as RepsObjective
    from .training.objectives import SftObjective as SftObjective
    from .training.objectives import SplitObjective as SplitObjective
    from .training.trainer import train as train

__all__ = ["__version__", "analysis", "errors", *_WHERE]  # noqa: PLE0604


_find = lazy_names(__name__, _WHERE)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    globals()[name] = value = _find(name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
