"""Run by Python at the start of every process below the launcher, because this folder is first on `PYTHONPATH`.

EasyEdit's `run_SPILT.py` starts `vectors_generate.py` and others as programs of their own; registering in the launcher
does not reach them. An error there ends, below its traceback, in the sentence that the launcher would have said: it is
the last line of the log that the script keeps. Standard library only: every Python program that a script starts passes
here. The environment's own `sitecustomize`, hidden by this one, runs afterwards.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import TracebackType

_HERE = Path(__file__).resolve().parent


def register_here() -> None:
    """Register our methods in this process; the package is found where this file lies, if nowhere else."""
    if importlib.util.find_spec("easyedit_split") is None:
        sys.path.append(str(_HERE.parents[2]))
    from easyedit_split.easyedit import register

    register()


def say_mistake(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's own traceback, and below it the mistake in one sentence, where EasyEdit was at work."""
    sys.__excepthook__(kind, error, trace)
    if "steer" in sys.modules:
        from easyedit_split.easyedit.script_errors import in_words

        print(f"easyedit-split: {in_words(error, Path(sys.argv[0]).name)}", file=sys.stderr)


def run_hidden() -> None:
    """Run the `sitecustomize` that Python would have found without this folder."""
    others = [entry for entry in sys.path if Path(entry).resolve() != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    register_here()
    sys.excepthook = say_mistake
    run_hidden()
