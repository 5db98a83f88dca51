"""What importing the package and asking for help cost, in processor time of fresh interpreters, medians of five."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _cost(*arguments: str) -> float:
    """Processor seconds of one interpreter; what else the machine does costs it nothing."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0
    return spent() - before


def _median(*arguments: str) -> float:
    _cost(*arguments)  # writes byte code where there is none
    return statistics.median(_cost(*arguments) for _ in range(5))


def test_importing_the_package_costs_next_to_nothing() -> None:
    assert _median("-c", "import easyedit_split") - _median("-c", "pass") <= 0.15


def test_help_comes_at_once() -> None:
    assert _median("-m", "easyedit_split", "--help") <= 0.5
    assert _median("-m", "easyedit_split", "train", "--help") <= 0.5
