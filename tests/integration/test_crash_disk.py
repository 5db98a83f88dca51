"""A full disk, a folder that cannot be written, two writers: one sentence, and what was finished before is kept."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crash import EAGER, TRAIN, Runner, runner
from laws import noisy
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.errors import ArtifactError
from easyedit_split.formats.gguf import to_gguf
from easyedit_split.formats.huggingface import export_checkpoint
from easyedit_split.storage.files import write_text
from easyedit_split.storage.locks import folder_lock
from easyedit_split.sweeps.table import SweepTable


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, where the system lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no permission to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _table(points: int) -> SweepTable:
    losses = np.random.default_rng(0).random((points, 50))
    return SweepTable(np.arange(points, dtype=float), losses, losses + 1, "sum", np.ones(50), np.ones(50))


def _writers(model: Any, folder: Path) -> dict[str, Any]:
    """Every kind of file this package writes, each too large for what is left."""
    vector = noisy(model, "vector", "residual")
    return {
        "artifact": lambda: vector.save(folder / "artifact"),
        "peft": lambda: noisy(model, "lora").to_peft(folder / "peft"),
        "gguf": lambda: to_gguf(vector, folder / "v.gguf"),
        "sweep": lambda: _table(200).save(folder / "sweep.parquet"),
        "checkpoint": lambda: export_checkpoint(model, tiny_tokenizer(), vector_lora(model), folder / "hf", 1.0),
        "text": lambda: write_text(folder / "report.md", "x" * 10000),
    }


def vector_lora(model: Any) -> SteeringArtifact:
    return noisy(model, "lora")


def test_a_full_disk_gives_a_sentence(small_disk: Path) -> None:
    """What was there stays whole, nothing half-written stays."""
    model = tiny_model("qwen2")
    kept = noisy(model, "vector", "residual").save(small_disk / "artifact")
    before = kept.read_bytes()
    with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    for name, write in _writers(model, small_disk).items():
        with pytest.raises(ArtifactError, match="could not be written .*: free space or choose another folder"):
            write()
            pytest.fail(name)
    assert kept.read_bytes() == before
    assert not [p for p in small_disk.rglob("*") if p.name.endswith(".part")]


def test_a_file_in_place_of_the_folder_gives_a_sentence(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    (tmp_path / "file").write_text("keep")
    for name, write in _writers(model, tmp_path / "file").items():
        with pytest.raises(ArtifactError, match="could not be written"):
            write()
            pytest.fail(name)
    with pytest.raises(ArtifactError, match="cannot be written"), folder_lock(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "keep"


def test_a_read_only_file_system_gives_a_sentence(small_disk: Path) -> None:
    """A user who is root may write anywhere, but not on a file system mounted read-only."""
    model = tiny_model("qwen2")
    kept = noisy(model, "vector", "residual").save(small_disk / "artifact")
    if subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], capture_output=True).returncode:
        pytest.skip("no permission to mount a file system read-only")
    for name, write in _writers(model, small_disk).items():
        with pytest.raises(ArtifactError, match=r"could not be written \(Read-only file system"):
            write()
            pytest.fail(name)
    with pytest.raises(ArtifactError, match="Read-only"), folder_lock(small_disk):
        pass
    assert SteeringArtifact.load(kept).form == "vector"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return runner(tmp_path_factory.mktemp("crash"))


def test_training_that_meets_a_limit_goes_on_where_it_was(runs: Runner, tmp_path: Path) -> None:
    """No file may be longer than 1 kB: status 2 and one sentence; without the limit it then ends."""
    arguments = [*TRAIN, *EAGER, "layers=[3]", "n_epochs=1", "max_num_of_examples=16", f"output_dir={tmp_path / 'run'}"]
    assert runs.finish(arguments, limit=1000) == 2
    said = [line for line in runs.log.read_text().splitlines() if line.startswith("easyedit-split:")]
    assert len(said) == 1
    assert "could not be written (File too large): free space" in said[0]
    assert "Traceback" not in runs.log.read_text()
    assert not list((tmp_path / "run").glob("*"))
    assert runs.finish(arguments) == 0
    assert SteeringArtifact.load(tmp_path / "run").form == "vector"


def _hold(folder: str, connection: Any) -> None:
    with folder_lock(folder):
        connection.send("held")
        connection.recv()
        os.kill(os.getpid(), 9)


def test_two_writers_one_folder(tmp_path: Path) -> None:
    """The second refuses; a killed holder's lock is gone with it; what it left half-written is cleared away."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(str(tmp_path), there))
    process.start()
    assert here.recv() == "held"
    with pytest.raises(ArtifactError, match="another process is writing to"), folder_lock(tmp_path):
        pass
    here.send("die")
    process.join()
    assert process.exitcode == -9
    (tmp_path / ".layer_1.safetensors.ab12_cd3.part").write_text("half")
    (tmp_path / "mine.part").write_text("keep")
    with folder_lock(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "mine.part"]
        with pytest.raises(ArtifactError, match="another process"), folder_lock(tmp_path):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["mine.part"]
