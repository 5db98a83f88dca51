"""Two processes give what one gives, up to the rounding of sums; only the first writes and prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS, assert_close
from tiny import tiny_model, tiny_tokenizer
from two_processes import RUNS, run

from easyedit_split import distributed
from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.cli import main
from easyedit_split.sweeps.table import SweepTable

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1",
]  # fmt: skip
# float32 sums in another order, through 4 to 10 steps of AdamW, whose first steps divide a gradient by its own size
TOLERANCE = 1e-4


def _launched(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def _same_change(a: Path, b: Path) -> None:
    first, second = SteeringArtifact.load(a).delta.tensors(), SteeringArtifact.load(b).delta.tensors()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert bool(tensor.abs().max() > 0)
        assert_close(second[name], tensor, TOLERANCE)


def test_two_processes_train_and_sweep_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    run(one)
    done = _launched([*TORCHRUN, str(Path(__file__).with_name("two_processes.py")), str(two)])
    assert done.stdout.count("printed once") == 1
    for name in RUNS:
        _same_change(one / name, two / name)
        assert (two / f"{name}.checkpoint").is_file()
    expected, found = SweepTable.load(one / "sweep.parquet"), SweepTable.load(two / "sweep.parquet")
    for values in ("loss_pos", "loss_neg"):
        np.testing.assert_allclose(getattr(found, values), getattr(expected, values), rtol=1e-5)
    messages = [(two / f"error.{i}").read_text(encoding="utf-8") for i in range(2)]
    assert all(re.match(r"step \d+: the (loss of .*|gradient) is not finite: lower lr", m) for m in messages)


def test_accelerate_launches_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    lines = [f"{p.question},{p.matching},{p.not_matching}".replace("Yes, I", "Yes I") for p in TEXT_PAIRS]
    (tmp_path / "pairs.csv").write_text("question,matching,not_matching\n" + "\n".join(lines) + "\n", encoding="utf-8")
    shared = [f"model_name_or_path={tmp_path / 'model'}", "layers=[1]"]
    train = [
        "train", *shared, "alg_name=split", "intervention_method=vector", f"train_data={tmp_path / 'pairs.csv'}",
        "batch_size=2", "n_epochs=2", "lr=0.05", "dropout=0.0", "gradient_accumulation_steps=1",
    ]  # fmt: skip
    sweep = ["sweep", *shared, f"test_data={tmp_path / 'pairs.csv'}", "factors=[-1,0,1]"]

    def both(name: str) -> list[list[str]]:
        folder = f"output_dir={tmp_path / name}"
        return [[*train, folder], [*sweep, "--artifact", str(tmp_path / name), folder]]

    for command in both("one"):
        assert main(command) == 0
    printed = capsys.readouterr().out
    for command in both("two"):
        done = _launched([*ACCELERATE, "-m", "easyedit_split", *command])
        assert done.stdout.count(str(tmp_path / "two")) == 1
        assert ("by 2 processes" in done.stdout) is (command[0] == "train")
    assert printed.count(str(tmp_path / "one")) == 2
    _same_change(tmp_path / "one", tmp_path / "two")
    tables = [SweepTable.load(tmp_path / name / "sweep.parquet") for name in ("one", "two")]
    np.testing.assert_allclose(tables[1].loss_pos, tables[0].loss_pos, rtol=1e-4)


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (distributed.world(), distributed.rank(), distributed.shard()) == (1, 0, slice(0, None, 1))
    assert distributed.own_device("cuda") == "cuda"
    assert distributed.everywhere(True) and not distributed.everywhere(False)
    values = torch.ones(3)
    assert distributed.total(values) is values
    monkeypatch.setenv("WORLD_SIZE", "4")  # what a batch system may set alone is no launcher
    with distributed.processes(pytest.MonkeyPatch.context()):
        assert distributed.world() == 1
