"""Run by Python at the start of every process below the launcher, because this folder is first on `PYTHONPATH`.

EasyEdit's `run_SPILT.py` starts `vectors_generate.py` and others as programs of their own; registering in the launcher
does not reach them. Standard library only: every Python program that a script starts passes here. The environment's
own `sitecustomize`, hidden by this one, runs afterwards.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def register_here() -> None:
    """Register our methods in this process; the package is found where this file lies, if nowhere else."""
    if importlib.util.find_spec("easyedit_split") is None:
        sys.path.append(str(_HERE.parents[2]))
    from easyedit_split.easyedit import register

    register()


def run_hidden() -> None:
    """Run the `sitecustomize` that Python would have found without this folder."""
    others = [entry for entry in sys.path if Path(entry).resolve() != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    register_here()
    run_hidden()
