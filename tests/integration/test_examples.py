"""The examples run as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_merge_and_export_leaves_the_model_as_it_was():
    assert "bit for bit: True" in run("merge_and_export.py")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["which_strength.py", "one_strength_a_row.py"])
def test_examples_run(name):
    assert "sofa" in run(name) or "m = " in run(name)
