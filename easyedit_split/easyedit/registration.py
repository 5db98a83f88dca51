"""Make EasyEdit know our methods, without touching it and without importing it."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from ..errors import HostError
from . import repair
from .importhook import ImportHook, is_importable
from .methods import METHODS

HOME_VARIABLE = "EASYEDIT_HOME"

_hook = ImportHook()


def register() -> None:
    """Register our methods in EasyEdit: `alg_name: split`, `unified_sft`, `unified_reps`, `unified_diffmean`.

    May be called before or after `steer` is imported, and any number of times.
    `steer` is found where Python finds it, or else in the current folder or in one that `EASYEDIT_HOME` names.
    Importing a release that cannot be imported as it is becomes possible (see `repair`).

    Raises:
        HostError: `steer` is imported already and has a layout this package does not know.
    """
    add_host_to_path()
    _hook.install()
    for name in repair.SAE_MODULES:
        _hook.watch(name, around=repair.exec_without_sae_lens)
    for name in repair.PACKAGES:
        _hook.watch(name, after=_provide)
    _hook.watch("steer.utils.alg_dict", after=_add_methods)
    _hook.watch("steer.utils.load_hparams", after=_check_hparams)
    _hook.watch("steer.vector_generators.vector_generators", after=_require_dataset)
    _hook.watch("steer.models.model_wrapper", after=_teach_wrappers)


def host_is_found() -> bool:
    """Whether `steer` can be imported as Python's path stands."""
    return is_importable("steer")


def add_host_to_path() -> None:
    """Lengthen Python's path by the folder that holds `steer`: the current one, or one that `EASYEDIT_HOME` names.

    Nothing is changed where `steer` is found already, or nowhere.
    """
    if host_is_found():
        return
    for entry in (".", *os.environ.get(HOME_VARIABLE, "").split(os.pathsep)):
        if entry and is_checkout(Path(entry)):
            sys.path.append(str(Path(entry).resolve()))
            importlib.invalidate_caches()
            return


def is_checkout(folder: Path) -> bool:
    """Whether EasyEdit's folder `steer` lies in `folder`."""
    return (folder / "steer" / "utils" / "alg_dict.py").is_file()


def require_host() -> None:
    """Put `steer` on Python's path, and raise unless it can be imported then.

    Raises:
        HostError: naming the places looked at.
    """
    add_host_to_path()
    if not host_is_found():
        raise HostError(
            f"EasyEdit (its folder 'steer') is neither on the Python path nor in the current folder nor in "
            f"{HOME_VARIABLE}={os.environ.get(HOME_VARIABLE, '')!r}; clone https://github.com/zjunlp/EasyEdit and set "
            f"{HOME_VARIABLE} to the clone."
        )


def _provide(package: ModuleType) -> None:
    repair.provide_missing_names(package)


def _add_methods(registry: ModuleType) -> None:
    from . import methods
    from .hparams import shell_classes

    classes = getattr(registry, "HYPERPARAMS_CLASS_DICT", None)
    targets = getattr(registry, "METHOD_FNS", None)
    functions = getattr(registry, "METHODS_CLASS_DICT", None)
    if not isinstance(classes, dict) or not (isinstance(targets, dict) or isinstance(functions, dict)):
        raise HostError(
            f"{registry.__file__} has neither METHOD_FNS nor a METHODS_CLASS_DICT that can be extended, so this "
            "EasyEdit has a layout that is not known here; use one of the commits named in docs/upstreaming.md."
        )
    base = importlib.import_module("steer.utils.hparams").HyperParams
    for name in METHODS:
        classes[name] = shell_classes(base, name)
        if isinstance(targets, dict):
            targets[name] = {phase: f"{methods.__name__}:{phase}" for phase in ("train", "apply")}
        elif functions is not None:
            functions[name] = {"train": methods.train, "apply": methods.apply}


def _check_hparams(module: ModuleType) -> None:
    from .loaders import watch_loaders

    watch_loaders(module)


def _require_dataset(module: ModuleType) -> None:
    """A method missing from this list is called without its data."""
    required = getattr(module, "REQUIRED_DATASET_METHODS", None)
    if not isinstance(required, list):
        raise HostError(
            f"{module.__file__} has no list REQUIRED_DATASET_METHODS, so this EasyEdit has a layout that is not "
            "known here; use one of the commits named in docs/upstreaming.md."
        )
    required.extend(name for name in METHODS if name not in required)


def _teach_wrappers(module: ModuleType) -> None:
    from .wrappers import teach

    teach(module, METHODS)
