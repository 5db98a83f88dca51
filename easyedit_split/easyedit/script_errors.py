"""What went wrong in one of EasyEdit's scripts, in one sentence instead of its traceback.

EasyEdit raises Python's and the libraries' own errors. Which mistake it was is read from the frames that the error
passed: what they are called, and what their variables held.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ..errors import SteeringError, nearest


def in_words(error: BaseException, script: str) -> str:
    """The sentence for an error that left `script`: what was wrong, and what to do about it."""
    if isinstance(error, SteeringError):
        return str(error)
    for frame in reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]):
        for explain in (_data_set, _model, _vector, _method_file):
            sentence = explain(error, frame)
            if sentence:
                return sentence
    return _hydra_key(error) or _anything(error, script)


def _data_set(error: BaseException, frame: FrameType) -> str | None:
    names = frame.f_locals
    if frame.f_code.co_name not in ("load_file", "format_single_item") or "self" not in names:
        return None
    part, name = names.get("split"), names.get("dataset_name")
    known = getattr(names["self"], "format_config", {}).get(part, {})
    listed = "hparams/Steer/dataset_format.yaml"
    if isinstance(error, KeyError) and name not in known:
        shown = nearest(str(name), list(known))
        return f"the data set {name!r} is not under '{part}:' in {listed}{shown}; add it there, or use one of those."
    if isinstance(error, FileNotFoundError):
        path = names.get("file_path", "?")
        return f"the data set {name!r} is missing: {listed} looks for {path} from the current folder; put it there."
    return None


def _model(error: BaseException, frame: FrameType) -> str | None:
    if frame.f_code.co_name != "get_model" or "hparams" not in frame.f_locals:
        return None
    name = getattr(frame.f_locals["hparams"], "model_name_or_path", None)
    if "not supported" in str(error):
        registry = frame.f_globals.get("_TEXT_REGISTRY", [("llama",), ("gpt",), ("gemma",), ("qwen",)])
        families = ", ".join(entry[0] for entry in registry)
        return (
            f"EasyEdit finds a model's family in its name, and {str(name)!r} has none of {families}; rename the folder "
            "or link it under such a name (for a Llama shape, models/llama-NAME)."
        )
    if isinstance(error, (OSError, ValueError)):
        return (
            f"the model {str(name)!r} cannot be loaded ({_first_line(error)}); set model_name_or_path to a folder with "
            "config.json, the tokenizer and the weights."
        )
    return None


def _vector(error: BaseException, frame: FrameType) -> str | None:
    """EasyEdit's own appliers; ours say it themselves."""
    if not isinstance(error, FileNotFoundError) or "vector_appliers" not in frame.f_code.co_filename:
        return None
    name = error.filename or _first_line(error)
    return f"the vector {name} does not exist; set steer_vector_load_dir to what was trained."


def _method_file(error: BaseException, frame: FrameType) -> str | None:
    if isinstance(error, AssertionError) and "hparam_path" in frame.f_locals:
        path = frame.f_locals["hparam_path"]
        return f"the hyper-parameter file {path} does not exist in the current folder; check the path."
    return None


def _hydra_key(error: BaseException) -> str | None:
    if not type(error).__module__.startswith(("hydra", "omegaconf")):
        return None
    advice = next((line for line in _lines(error) if line.startswith("To append")), "")
    rest = f"; {advice[0].lower()}{advice[1:]}" if advice else ""
    return f"{_first_line(error)}{rest}; or check its spelling in the script's config."


def _anything(error: BaseException, script: str) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{script} stopped with {type(error).__name__} in {place.filename}, line {place.lineno} "
        f"({_first_line(error)}); 'run --debug' shows the traceback."
    )


def _first_line(error: BaseException) -> str:
    return next(_lines(error), "no message").rstrip(".")


def _lines(error: Any) -> Iterator[str]:
    return (line.strip() for line in str(error).split("\n") if line.strip())
