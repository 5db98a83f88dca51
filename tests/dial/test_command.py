"""`easyedit-split dial` as a program: it says where the page is, serves it, ends on Ctrl-C, and tells mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from laws import noisy
from nasty import FOLDER

from easyedit_split.cli import main


@contextmanager
def _opened(*arguments: str, cwd: Path) -> Iterator[tuple[str, Any]]:
    """The page's address, and the program that serves it."""
    command = [sys.executable, "-m", "easyedit_split", "dial", *arguments, "--port", "0", "--no-browser"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        line = next(line for line in program.stdout or () if "the dial is at " in line)
        yield line.split("the dial is at ")[1].split()[0], program
    finally:
        program.kill()
        program.wait()
        if program.stdout:
            program.stdout.close()


def _state(url: str) -> Any:
    with urllib.request.urlopen(url + "state", timeout=60) as reply:
        return json.load(reply)


def test_it_serves_a_run_and_ends_on_ctrl_c(run_folder: Path, tmp_path: Path) -> None:
    with _opened(str(run_folder), cwd=tmp_path) as (url, program):
        assert url.startswith("http://127.0.0.1:")
        assert [c["name"] for c in _state(url)["changes"]] == [FOLDER, "mood"]
        with urllib.request.urlopen(url, timeout=60) as reply:
            assert b"<title>Dial</title>" in reply.read()
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=20) == 0


@pytest.mark.slow
def test_without_a_run_the_demo_is_trained_first(tmp_path: Path) -> None:
    with _opened(cwd=tmp_path) as (url, _):
        state = _state(url)
    assert [c["name"] for c in state["changes"]] == ["local_weight", "lora", "vector"]
    assert all(c["curves"]["recommended"]["reliable"] for c in state["changes"])


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["dial", *arguments, "--no-browser"]) == 2
    return capsys.readouterr().err


def test_mistakes_are_one_sentence(
    run_folder: Path, lend: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no change: give the folder that train wrote" in _refused(capsys, str(tmp_path))
    noisy(lend("llama")).save(tmp_path / "foreign")
    said = _refused(capsys, str(tmp_path / "foreign"))
    assert "say where with --model FOLDER" in said
    for more in ((), ("--any-model",)):  # weights may be others, the architecture may not
        assert "the change was made for" in _refused(capsys, str(tmp_path / "foreign"), "--model", "demo", *more)
    assert "say which with --model FOLDER" in _refused(capsys, str(run_folder), str(tmp_path / "foreign"))
    assert "max_utility_drop is -1.0" in _refused(capsys, str(run_folder), "--max-utility-drop", "-1")
    assert "port" in _refused(capsys, str(run_folder), "--port", "99999")
