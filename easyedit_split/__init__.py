"""Steering as a dial on a trained change of one affine map, `h' = (W + m1 dW) h + (b + m2 db)`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "PreferencePair": "pairs", "load_pairs": "pairs", "flat_pairs": "pairs",
    "Site": "sites", "COMPONENTS": "sites", "FORMS": "deltas",
    "TrainConfig": "config", "Hyperparameters": "config", "load_hparams": "hyperfiles",
    "SplitObjective": "objectives", "SftObjective": "objectives", "RepsObjective": "objectives",
    "train": "trainer", "diff_mean": "estimators", "SteeringArtifact": "artifact",
    "sweep": "sweeps", "SweepTable": "sweeps", "generate": "generation", "load_model": "models",
    "register": "easyedit", "SteeringError": "errors",
}  # fmt: skip
_MODULES = ("analysis", "errors")

if TYPE_CHECKING:
    from . import analysis as analysis
    from . import errors as errors
    from .artifact import SteeringArtifact as SteeringArtifact
    from .config import Hyperparameters as Hyperparameters
    from .config import TrainConfig as TrainConfig
    from .deltas import FORMS as FORMS
    from .easyedit import register as register
    from .errors import SteeringError as SteeringError
    from .estimators import diff_mean as diff_mean
    from .generation import generate as generate
    from .hyperfiles import load_hparams as load_hparams
    from .models import load_model as load_model
    from .objectives import RepsObjective as RepsObjective
    from .objectives import SftObjective as SftObjective
    from .objectives import SplitObjective as SplitObjective
    from .pairs import PreferencePair as PreferencePair
    from .pairs import flat_pairs as flat_pairs
    from .pairs import load_pairs as load_pairs
    from .sites import COMPONENTS as COMPONENTS
    from .sites import Site as Site
    from .sweeps import SweepTable as SweepTable
    from .sweeps import sweep as sweep
    from .trainer import train as train

__all__ = ["__version__", "analysis", "errors", *_WHERE]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _WHERE:
        value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
