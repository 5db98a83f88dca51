"""A grid killed at random moments, then the same command again: nothing finished is lost, redone, or different."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from crash import Runner, kill_many, runner
from grids import settings, small_grid

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.cli import main
from easyedit_split.errors import ArtifactError
from easyedit_split.reproduce import cell as cell_module
from easyedit_split.reproduce.cell import Task, run_cell
from easyedit_split.reproduce.run import plan
from easyedit_split.storage.locks import folder_lock
from easyedit_split.sweeps.table import SweepTable
from easyedit_split.training.trainer import _Loop

KILLS = [pytest.param(2, id="2"), pytest.param(20, id="20", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return runner(tmp_path_factory.mktemp("crash"))


def _command(place: Path, out: str) -> list[str]:
    return [
        "reproduce", str(place / "hparams" / "mine"), "--jobs", "1", f"model_name_or_path={place / 'tiny-qwen2'}",
        f"output_dir={place / out}", "seeds=[0,1]", "concepts=1", "max_new_tokens=3", "n_held_out=4", "points=15",
        "n_boot=5",
    ]  # fmt: skip


def _results(out: Path) -> dict[str, Any]:
    """Every cell's result without its seconds; a result that cannot be read fails here."""
    found = {str(p.relative_to(out)): json.loads(p.read_text()) for p in out.rglob("result.json")}
    return {name: {k: v for k, v in result.items() if k != "seconds"} for name, result in found.items()}


@pytest.mark.parametrize("kills", KILLS)
def test_grid_killed(runs: Runner, tmp_path: Path, kills: int) -> None:
    place = small_grid(tmp_path)
    seconds = runs.seconds(_command(place, "whole"))
    whole, out = _results(place / "whole"), place / "out"
    written: dict[Path, int] = {}
    most: list[int] = []

    def check() -> None:
        for path in out.rglob("*.parquet"):
            SweepTable.load(path)
        for path in out.rglob("*.safetensors"):
            SteeringArtifact.load(path)
        done = {p: p.stat().st_mtime_ns for p in out.rglob("result.json") if json.loads(p.read_text()).get("judge")}
        assert written.items() <= done.items(), "a finished cell was lost or done again"
        written.update(done)
        most.append(len(done))

    def afresh() -> None:
        assert _results(out) == whole
        shutil.rmtree(out)
        written.clear()

    killed, _ = kill_many(runs, _command(place, "out"), kills, 5, seconds, afresh, check)
    assert killed == kills
    assert any(0 < n < len(whole) for n in most), "no kill came between two cells"
    check()
    assert _results(out) == whole
    assert not [p for p in out.rglob(".*") if p.is_file()], "progress files stay behind"


def _stopped_after_the_sweeps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Task, dict[str, Any]]:
    """A cell whose progress files are there and whose result is not, and the result it must come to."""
    cell_module.cached_model.cache_clear()
    (task,) = plan(settings(small_grid(folder)), ["pairs-0/split_vector/s0"]).tasks
    whole = run_cell(task)
    shutil.rmtree(task.folder)
    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(cell_module, "choose", _interrupted)
        run_cell(task)
    return task, whole


def test_a_cell_killed_after_training_does_not_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, whole = _stopped_after_the_sweeps(tmp_path, monkeypatch)
    steps: list[int] = []
    real = _Loop._step
    monkeypatch.setattr(_Loop, "_step", lambda self, step, artifact: (steps.append(step), real(self, step, artifact)))
    again = run_cell(task)
    assert steps == []
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert not list(task.folder.glob(".*"))


def test_progress_that_cannot_be_read_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, whole = _stopped_after_the_sweeps(tmp_path, monkeypatch)
    for path in task.folder.glob(".*.progress"):
        path.write_bytes(path.read_bytes()[:100])
    assert {**run_cell(task), "seconds": 0} == {**whole, "seconds": 0}
    assert not list(task.folder.glob(".*"))


def test_a_full_disk_costs_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no broken progress file: what is done stays, and is taken up when there is room."""
    task, whole = _stopped_after_the_sweeps(tmp_path, monkeypatch)
    kept = {path: path.read_bytes() for path in task.folder.glob(".*.progress")}

    def full(table: SweepTable, path: Path) -> None:
        raise ArtifactError(f"{path} could not be written (No space left on device)")

    with monkeypatch.context() as once, pytest.raises(ArtifactError, match="No space left"):
        once.setattr(SweepTable, "save", full)
        run_cell(task)
    assert kept and {path: path.read_bytes() for path in task.folder.glob(".*.progress")} == kept
    assert {**run_cell(task), "seconds": 0} == {**whole, "seconds": 0}


def _interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_two_grids_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = small_grid(tmp_path)
    with folder_lock(place / "out"):
        assert main(_command(place, "out")) == 2
        assert "another process is writing to" in capsys.readouterr().err
        assert main([*_command(place, "out"), "--dry-run"]) == 0
