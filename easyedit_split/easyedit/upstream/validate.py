"""Run this project's own tests inside a checkout, and read what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import HostError

TESTS = Path(__file__).resolve().parents[3] / "tests"
MEASURED = "EASYEDIT_SPLIT_MEASURED"


@dataclass(frozen=True)
class Outcome:
    """Which tests held, by name (parametrised ones together), and what they measured: (test, what) -> figure."""

    held: dict[str, bool] = field(default_factory=dict)
    measured: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, tests: Collection[str]) -> Outcome:
        """The part about some of the tests."""
        held = {name: value for name, value in self.held.items() if name in tests}
        return Outcome(held, {key: value for key, value in self.measured.items() if key[0] in tests})


def run_tests(checkout: Path, tests: Sequence[str]) -> Outcome:
    """Run tests of `tests/host` with `checkout` as EasyEdit, in a process of their own.

    Args:
        tests: `file.py::name`; tests that this checkout skips are left out of what is returned.

    Raises:
        HostError: the tests are not there (they come with the source tree, not with an installed package).
    """
    if not (TESTS / "host" / "cures.py").is_file():
        raise HostError("the tests lie in a clone of this project, not in the package; say --no-validation, or use one")
    with tempfile.TemporaryDirectory(prefix="validate-") as folder:
        report, log = Path(folder) / "report.xml", Path(folder) / "measured.jsonl"
        root = str(TESTS.parent)
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([root, str(TESTS)]), "EASYEDIT_HOME": str(checkout),
            MEASURED: str(log), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-q", "-o", "filterwarnings=ignore", "-p", "no:cacheprovider"]
        command += ["--rootdir", root, "--basetemp", str(Path(folder) / "tmp"), f"--junitxml={report}"]
        command += [str(TESTS / "host" / test) for test in tests]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        if not report.is_file():
            raise HostError(f"the tests could not be run: {done.stdout.strip()[-300:]}")
        return Outcome(_held(report), _measured(log))


def _held(report: Path) -> dict[str, bool]:
    held: dict[str, bool] = {}
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "").split("[")[0]
        if case.find("skipped") is None:
            held[name] = held.get(name, True) and case.find("failure") is None and case.find("error") is None
    return held


def _measured(log: Path) -> dict[tuple[str, str], str]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return {(entry["test"], entry["what"]): entry["value"] for entry in map(json.loads, lines)}
