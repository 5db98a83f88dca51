"""EasyEdit's loaders of method files, made strict for our files.

EasyEdit drops unknown keys without a word, loses one of two files of the same method, and its oldest commit does not
know files with `generate:` and `apply:` sections. For files of our methods all three are put right here; the
loaders still do everything for the other methods.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError
from .method_files import read_method_file
from .methods import METHODS

_MARK = "_watched_by_easyedit_split"
_PATHS = {"train": "steer_train_hparam_paths", "apply": "apply_steer_hparam_paths"}
_LOADERS = {"train": "load_generate_vector_hparams", "apply": "load_apply_vector_hparams"}
_SET_BY_HOST = ("steer_vector_output_dir", "steer_train_dataset", "steer_vector_load_dir")


def watch_loaders(module: ModuleType) -> None:
    """Wrap the two loaders of `steer.utils.load_hparams`, once, also where `steer.utils` already holds them."""
    for phase, name in _LOADERS.items():
        original = getattr(module, name, None)
        if original is None or getattr(original, _MARK, False):
            continue
        wrapped = _strict(original, phase, module)
        setattr(module, name, wrapped)
        package = sys.modules.get("steer.utils")
        if package is not None and getattr(package, name, None) is original:
            setattr(package, name, wrapped)


def _strict(original: Callable[[Any], dict[str, Any]], phase: str, module: ModuleType) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def load(top_cfg: Any) -> dict[str, Any]:
        own = _own_files(top_cfg, phase)
        shells = original(top_cfg)
        top = _plain(top_cfg)
        for name, (path, values) in own.items():
            shells[name] = _rebuild(module.HYPERPARAMS_CLASS_DICT[name][phase], shells[name], {**values, **top}, path)
        return shells

    setattr(load, _MARK, True)
    return load


def _own_files(top_cfg: Any, phase: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Our methods among the files the config names: method -> (path, values for this phase).

    Raises:
        ConfigError: a file of ours has a fault, or two files are of the same method.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in _plain(top_cfg).get(_PATHS[phase]) or []:
        if not Path(path).is_file():
            continue  # EasyEdit names the missing file itself
        values = read_method_file(path, phase, METHODS)
        if values is None:
            continue
        name = values["alg_name"]
        if name in found:
            raise ConfigError(
                f"{_PATHS[phase]} names two files of the method {name!r}, {found[name][0]} and {path}, and EasyEdit "
                "keeps one file a method; leave one of them, or put the layers of both into one file."
            )
        found[name] = (str(path), values)
    return found


def _plain(cfg: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    if OmegaConf.is_config(cfg):
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    return dict(cfg)


def _rebuild(shell_class: type, host_made: Any, values: dict[str, Any], path: str) -> Any:
    known = shell_class.__dataclass_fields__  # type: ignore[attr-defined]
    shell = shell_class(**{key: value for key, value in values.items() if key in known})
    for name in _SET_BY_HOST:
        if hasattr(host_made, name):
            setattr(shell, name, getattr(host_made, name))
    shell.hparams_file = path
    return shell
