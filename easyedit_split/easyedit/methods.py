"""The two functions EasyEdit calls, for every one of our methods; what they need is imported when they run."""

from __future__ import annotations

from typing import Any


def train(hparams: Any, dataset: Any, dataset_name: str | None = None, model: Any = None) -> dict[str, Any]:
    """Train the method that `hparams.alg_name` names; returns `{"layer_<l>": value}` as EasyEdit expects."""
    from .generate import generate_vectors

    return generate_vectors(hparams, dataset, dataset_name=dataset_name, model=model)


def apply(hparams: Any, model: Any = None, vector: Any = None, *, pipline: Any = None, pipeline: Any = None) -> Any:
    """Apply what was trained; returns EasyEdit's wrapper.

    EasyEdit's callers pass the wrapper by position, as `pipline` or as `pipeline`.
    """
    from .apply import apply_vectors

    given = [value for value in (model, pipline, pipeline) if value is not None]
    return apply_vectors(hparams, given[0] if given else None, vector)


#: The methods this package adds, each with a train and an apply phase: `config.OBJECTIVE_OF`, which every Hydra
#: program would wait for if it were imported here.
METHODS = ("split", "unified_sft", "unified_reps", "unified_diffmean")
