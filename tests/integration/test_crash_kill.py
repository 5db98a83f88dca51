"""`kill -9` at random moments, then the same command again: the result is that of a run nobody killed, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash import EAGER, SWEEP, TRAIN, Runner, kill_many, runner

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.storage.files import read_tensors
from easyedit_split.sweeps.table import SweepTable

KILLS = [pytest.param(3, id="3"), pytest.param(20, id="20", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return runner(tmp_path_factory.mktemp("crash"))


@pytest.fixture(scope="module")
def trained(runs: Runner, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A training run nobody killed, and its seconds."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, runs.seconds([*TRAIN, *EAGER, f"output_dir={folder}"])


@pytest.fixture(scope="module")
def swept(runs: Runner, trained: tuple[Path, float]) -> tuple[Path, float]:
    """A sweep nobody killed."""
    folder = trained[0].parent / "swept"
    return folder, runs.seconds([*SWEEP, *EAGER, "--artifact", str(trained[0]), f"output_dir={folder}"])


def _visible(folder: Path) -> Iterator[Path]:
    """Files a user would take for results."""
    return (p for p in folder.glob("*") if not p.name.startswith("."))


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("kills", KILLS)
def test_training_killed(runs: Runner, trained: tuple[Path, float], tmp_path: Path, kills: int) -> None:
    """Two layers: the artifact of the first must survive a kill in the second."""
    whole, seconds = trained
    folder = tmp_path / "run"
    folder.mkdir()
    steps: list[int] = []

    def check() -> None:
        """Nothing half-written is visible or would be read; progress is never lost."""
        for path in folder.glob("*.safetensors"):
            SteeringArtifact.load(path)
        done = sum(read_tensors(p)[1]["step"] for p in folder.glob(".layer_*.checkpoint"))
        ended = (folder / "layer_3.safetensors").exists()  # from then on checkpoints are removed
        assert not steps or done >= steps[-1] or ended
        steps.append(done)

    def afresh() -> None:
        assert _contents(folder) == _contents(whole)
        _clear(folder)
        steps.clear()

    arguments = [*TRAIN, *EAGER, f"output_dir={folder}"]
    killed, _ = kill_many(runs, arguments, kills, 7, seconds, afresh, check)
    assert killed == kills
    assert _contents(folder) == _contents(whole)


@pytest.mark.parametrize("kills", KILLS)
def test_sweep_killed(
    runs: Runner, trained: tuple[Path, float], swept: tuple[Path, float], tmp_path: Path, kills: int
) -> None:
    whole, seconds = swept
    folder = tmp_path / "run"
    folder.mkdir()
    batches: list[int] = []

    def check() -> None:
        for path in _visible(folder):
            SweepTable.load(path)
        for path in folder.glob(".*.partial"):
            done = read_tensors(path)[1]["batches"]
            assert not batches or done >= batches[-1]
            batches.append(done)

    def afresh() -> None:
        assert _contents(folder) == _contents(whole)
        _clear(folder)
        batches.clear()

    arguments = [*SWEEP, *EAGER, "--artifact", str(trained[0]), f"output_dir={folder}"]
    killed, _ = kill_many(runs, arguments, kills, 11, seconds, afresh, check)
    assert killed == kills
    assert batches, "no kill came after the first batch"
    assert _contents(folder) == _contents(whole)


@pytest.mark.slow
def test_a_real_process_killed(trained: tuple[Path, float], tmp_path: Path) -> None:
    """The same with `python -m easyedit_split`, once, as soon as there is a checkpoint; the lock goes with it."""
    folder = tmp_path / "run"
    arguments = [*TRAIN, *EAGER, f"output_dir={folder}"]
    command = [sys.executable, "-m", "easyedit_split", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list(folder.glob(".layer_*.checkpoint")):
            time.sleep(0.01)
        second = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert process.poll() is None, "the first run ended before the second could meet it"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert second.returncode == 2
    assert "another process is writing to" in second.stderr.splitlines()[-1]
    assert "Traceback" not in second.stderr
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    for name, content in _contents(trained[0]).items():
        assert (folder / name).read_bytes() == content
