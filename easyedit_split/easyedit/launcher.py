"""`python -m easyedit_split run SCRIPT [args]`: register, then run one of EasyEdit's scripts unchanged."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, HostError, SteeringError
from . import children
from .registration import HOME_VARIABLE, is_checkout, register, require_host
from .script_errors import in_words

USAGE = """usage: easyedit-split run [--debug] SCRIPT [arguments of the script]

Run a script of EasyEdit, as vectors_generate.py, vectors_apply.py or examples/run_SPILT.py, with this package's
methods registered, in the programs too that the script starts. Start it in a clone of EasyEdit, whose scripts read
files relative to it. --debug shows the traceback of an error."""


def main(argv: Sequence[str]) -> int:
    """Run `argv[0]` as the main program, with the rest of `argv` as its arguments.

    The script sees what it would see under plain Python: its own folder first on the path, its name in `sys.argv`.
    Programs that it starts register our methods at their start (see `children`).

    Raises:
        ConfigError: no script is named, or it does not exist.
        HostError: EasyEdit cannot be found, or the script failed; the message says why, in one sentence.
    """
    debug = list(argv[:1]) == ["--debug"]
    argv = list(argv[1:] if debug else argv)
    if argv[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if not argv:
        raise ConfigError("no script was named; give one, for example: run vectors_generate.py device=cpu.")
    script = Path(argv[0])
    if not script.is_file():
        raise ConfigError(
            f"the script {str(script)!r} does not exist in {Path.cwd()}; go to a clone of EasyEdit first."
        )
    with _as_main_program(script, argv[1:]), _environment(script):
        require_host()
        register()
        _run(script, debug)
    return 0


def _run(script: Path, debug: bool) -> None:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        if debug or isinstance(error, SteeringError):
            raise
        raise HostError(in_words(error, script.name)) from error


@contextmanager
def _as_main_program(script: Path, arguments: list[str]) -> Iterator[None]:
    saved_argv, saved_path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = saved_argv, saved_path


@contextmanager
def _environment(script: Path) -> Iterator[None]:
    """What the programs that the script starts inherit; Hydra leaves errors to the launcher meanwhile."""
    changed = {"PYTHONPATH": _joined(str(Path(children.__file__).parent), os.environ.get("PYTHONPATH", ""))}
    changed["HYDRA_FULL_ERROR"] = "1"
    above = [folder for folder in script.resolve().parents[:2] if is_checkout(folder)]
    if above:  # the script's own clone before any other that is named
        changed[HOME_VARIABLE] = _joined(str(above[0]), os.environ.get(HOME_VARIABLE, ""))
    saved = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _joined(first: str, rest: str) -> str:
    return os.pathsep.join(entry for entry in (first, rest) if entry)
