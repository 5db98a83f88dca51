"""Hyper-parameter files: YAML in EasyEdit's field names, read strictly.

An unknown key is an error that names the nearest valid one. Both of EasyEdit's layouts are read: flat, and merged
(`generate:` and `apply:` sections over shared keys).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import ConfigError, nearest
from .hyperparameters import Hyperparameters
from .meanings import MEANINGS

# EasyEdit keys that have no effect here, and the only value they may then have (None: any)
_NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "use_cache": None, "max_concepts": None, "output_length": None, "loss_output_dir": None, "vector_name": None,
    "save_vectors": None, "steering_prompt_type": None, "label_smoothing": (0, 0.0), "beta": None, "gemma": None,
    "simpo_scaler": None, "reference_free": (False,), "loss_type": ("scaled_simpo",), "sft_preference_type": None,
    "train_on_negative": None, "substraction_type": ("normal", "null_it_out"), "inference": (False,),
    "intervention_positions": ("all",), "intervention_positions_dropout": (0, 0.0),
    "intervention_type": ("addition",), "ref_loss_weight": (0, 0.0), "save_activations": None,
}  # fmt: skip
# and those that would change one method
_NEUTRAL_OF: dict[str, dict[str, tuple[Any, ...]]] = {
    "unified_reps": {"beta": (1,), "gemma": (0,), "simpo_scaler": (1,)}
}
# spellings in EasyEdit's shipped files that its own code does not read, and what they mean
SPELLINGS = {"concepts_id": "concept_id"}
_KINDS = {
    "bool": ("true or false", "true"), "int": ("a whole number", "1"), "float": ("a number", "0.01"),
    "str": ("a text", "TEXT"),
}  # fmt: skip
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


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
    if "lr" in values:  # a rate that is said wins over one that would follow from the model
        values.pop("step_share", None)
    known = _kinds()
    unknown = [k for k in values if k not in known and k not in _NEUTRAL]
    if unknown:
        hints = " and ".join(f"{k!r}{nearest(str(k), [*known, *_NEUTRAL], MEANINGS)}" for k in unknown)
        raise ConfigError(f"{source or 'hyper-parameters'}: unknown key {hints}")
    neutral = {**_NEUTRAL, **_NEUTRAL_OF.get(str(values.get("alg_name")), {})}
    for key, allowed in neutral.items():
        if key in values and allowed is not None and values[key] not in allowed:
            raise ConfigError(f"{source}: {key} = {values[key]!r} is not supported: remove it, or set {allowed[0]!r}")
    accepted = {k: _converted(k, v, known[k], source) for k, v in values.items() if k in known}
    return Hyperparameters(**accepted, source=source)


@cache
def _kinds() -> dict[str, Any]:
    """Each hyper-parameter's type."""
    return {name: kind for name, kind in get_type_hints(Hyperparameters).items() if name != "source"}


def _renamed(values: dict[str, Any], source: str) -> dict[str, Any]:
    """EasyEdit's slips and spellings, each with a warning where the meaning is a guess."""
    for given, meant in SPELLINGS.items():
        if given in values:
            warnings.warn(f"{source}: {given} is read as {meant}", stacklevel=4)
            values.setdefault(meant, values.pop(given))
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


def _converted(key: str, value: Any, kind: Any, source: str) -> Any:
    """A value as its field's type wants it: a number that came as text, a list for a tuple, one item as a list."""
    if kind is Any:
        return value
    if get_origin(kind) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        if isinstance(value, str) and "," in value:
            raise ConfigError(f"{source or 'hyper-parameters'}: {key} = {value!r} is no list: write [{value}]")
        inner = get_args(kind)[0]
        return tuple(_converted(key, item, inner, source) for item in items)
    if value is None and NoneType in get_args(kind):
        return None
    wanted = (get_args(kind) or (kind,))[0]  # of `int | None`: int
    try:
        if wanted is bool and isinstance(value, bool):
            return value
        if wanted is int and not isinstance(value, bool) and float(value) == int(float(value)):
            return int(float(value))
        if wanted is float and not isinstance(value, bool):
            return float(value)
        if wanted is str and isinstance(value, (str, int, float)):
            return str(value)
    except (TypeError, ValueError, OverflowError):
        pass
    need, example = _KINDS[wanted.__name__]
    raise ConfigError(f"{source or 'hyper-parameters'}: {key} = {value!r} is not {need}: write {key}={example}")
