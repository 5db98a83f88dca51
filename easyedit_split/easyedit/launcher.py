"""`python -m easyedit_split run SCRIPT [args]`: register, then run one of EasyEdit's scripts unchanged."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from .registration import register, require_host

USAGE = """usage: easyedit-split run SCRIPT [arguments of the script]

Run a script of EasyEdit, as vectors_generate.py or vectors_apply.py, with this package's methods registered.
Start it in a clone of EasyEdit, whose scripts read files relative to it."""


def main(argv: Sequence[str]) -> int:
    """Run `argv[0]` as the main program, with the rest of `argv` as its arguments.

    The script sees what it would see under plain Python: its own folder first on the path, its name in `sys.argv`.

    Raises:
        ConfigError: no script is named, or it does not exist.
        HostError: EasyEdit cannot be found.
    """
    if list(argv[:1]) in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if not argv:
        raise ConfigError("no script was named; give one, for example: run vectors_generate.py device=cpu.")
    script = Path(argv[0])
    if not script.is_file():
        raise ConfigError(
            f"the script {str(script)!r} does not exist in {Path.cwd()}; go to a clone of EasyEdit first."
        )
    saved_argv, saved_path = sys.argv, list(sys.path)
    sys.argv = [str(script), *argv[1:]]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        require_host()
        register()
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = saved_argv, saved_path
    return 0
