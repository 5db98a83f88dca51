"""A grid on a tiny random model: what runs, what is kept, what runs again, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grids import settings, small_grid
from judge_server import Answer, judge_server
from tiny import tiny_model

from easyedit_split import SteeringArtifact, SweepTable
from easyedit_split.cli import main
from easyedit_split.errors import ConfigError
from easyedit_split.reproduce import cell as cell_module
from easyedit_split.reproduce.cell import run_cell
from easyedit_split.reproduce.grid import selected
from easyedit_split.reproduce.output import write_outputs
from easyedit_split.reproduce.results import read_result
from easyedit_split.reproduce.run import is_done, plan, run_tasks
from easyedit_split.reproduce.settings import grid_settings


@pytest.fixture(autouse=True)
def no_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return small_grid(tmp_path)


def test_the_grid_has_a_cell_for_each_concept_method_form_and_seed(place: Path) -> None:
    keys = {task.cell.key for task in plan(settings(place)).tasks}
    trained = {f"pairs-{c}/{m}_vector/s{s}" for c in (0, 1) for m in ("split", "diffmean") for s in (0, 1)}
    assert keys == trained | {"pairs-0/vanilla/s0", "pairs-1/vanilla/s0"}


def test_whole_grid_resumes_and_reports(place: Path) -> None:
    one = settings(place, concepts=1)
    found = plan(one)
    said: list[str] = []
    assert run_tasks(found.to_run[:2], 1, said.append) == {}
    assert said[-1].startswith("[2/2] ") and "left" in said[-1]
    again = plan(one)
    assert len(again.to_run) == len(again.tasks) - 2
    assert run_tasks(again.to_run, 1, said.append) == {}
    assert plan(one).to_run == []
    half_written = [place / "out" / part / ".left.svg.b7mcma5c.part" for part in ("tables", "figures")]
    for file in half_written:  # as a run that was killed leaves it
        file.parent.mkdir(exist_ok=True)
        file.write_text("half")
    written = write_outputs(one, found.tasks)
    assert not [file for file in half_written if file.exists()]
    text = written.markdown.read_text()
    assert "5 of 5 cells" in text
    assert "No judge scored pairs" in text
    assert "held-out training pairs" in text
    for name in ("table2", "table3", "table3_front", "table5", "table6", "offline", "strength", "training"):
        for suffix in ("md", "csv", "tex"):
            assert (place / "out" / "tables" / f"{name}.{suffix}").stat().st_size > 0
    assert "data:image/svg+xml" in written.page.read_text() or not list((place / "out" / "figures").glob("*.svg"))


def test_a_cell_of_several_layers(place: Path) -> None:
    file = place / "hparams" / "mine" / "pairs" / "split_vector.yaml"
    several = file.read_text().replace("layers: [1]", "layers: [0, 1]")
    file.write_text(several)
    with pytest.raises(ConfigError, match=r"split_vector.yaml: layers = \[0, 1\] is 2 changes, and here one"):
        run_cell(_task(place, "pairs-0/split_vector/s0"))
    file.write_text(f"{several}joint: true\n")
    task = _task(place, "pairs-0/split_vector/s0")
    found = run_cell(task)
    assert is_done(task) and found["strength"]["m"] != 0
    artifact = SteeringArtifact.load(task.folder)
    assert str(artifact.site) == "layers 0-1, mlp.down_proj"
    table = SweepTable.load(task.folder / "sweep_test.parquet")
    assert table.header["artifact"]["id"] == artifact.id


def test_a_cell_is_run_again_when_what_it_depends_on_changes(place: Path) -> None:
    task = _task(place, "pairs-0/split_vector/s0")
    run_cell(task)
    assert is_done(task)
    file = place / "hparams" / "mine" / "pairs" / "split_vector.yaml"
    file.write_text(file.read_text().replace("lr: 0.05", "lr: 0.04"))
    assert not is_done(_task(place, task.cell.key))
    file.write_text(file.read_text().replace("lr: 0.04", "lr: 0.05"))
    assert is_done(_task(place, task.cell.key))
    assert not is_done(_task(place, task.cell.key, budget=2.0))
    (place / "test.jsonl").write_text((place / "test.jsonl").read_text().replace("yes 1", "yes one"))
    assert not is_done(_task(place, task.cell.key))


def test_a_file_changed_after_the_plan_does_not_slip_into_a_result(place: Path) -> None:
    task = _task(place, "pairs-0/split_vector/s0")
    file = place / "hparams" / "mine" / "pairs" / "split_vector.yaml"
    file.write_text(file.read_text().replace("layers: [1]", "layers: [7]"))
    assert run_cell(task)["inputs"] == task.inputs  # layer 7 does not exist: the planned layer was trained
    assert not is_done(_task(place, task.cell.key))


def test_another_model_makes_every_cell_new(place: Path) -> None:
    run_cell(_task(place, "pairs-0/vanilla/s0"))
    tiny_model("qwen2", layers=2, seed=5).save_pretrained(place / "tiny-qwen2")
    cell_module.cached_model.cache_clear()
    assert not is_done(_task(place, "pairs-0/vanilla/s0"))


def test_a_broken_result_is_made_again(place: Path) -> None:
    task = _task(place, "pairs-0/vanilla/s0")
    run_cell(task)
    task.result_file.write_text(task.result_file.read_text()[:50])
    assert read_result(task.result_file) is None
    assert not is_done(task)


def test_test_pairs_never_choose_the_strength(place: Path) -> None:
    first = run_cell(_task(place, "pairs-0/split_vector/s0"))
    (place / "test.jsonl").write_text((place / "test.jsonl").read_text().replace("yes", "quite another answer"))
    second = run_cell(_task(place, "pairs-0/split_vector/s0"))
    assert second["inputs"] != first["inputs"]
    assert second["strength"] == first["strength"]


def test_held_out_pairs_are_neither_trained_on_nor_tested_on(place: Path) -> None:
    data = _task(place, "pairs-0/split_vector/s0").data
    assert not set(data.held_out) & set(data.train)
    assert not set(data.held_out) & set(data.test)
    assert len(data.held_out) == 4 and len(data.train) == 8


def test_a_judge_that_comes_later_scores_without_training_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="the judge needs the extra: pip install easyedit-split[judge]")
    key = "pairs-0/split_vector/s0"
    before = run_cell(_task(place, key))
    assert before["judge"]["scores"] == {}
    trained = _count_training(monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with judge_server(lambda r, n: Answer("Rating: 2")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        task = _task(place, key)
        assert not is_done(task)
        after = run_cell(task)
        assert is_done(task)
    assert trained == []
    assert after["judge"]["scores"] == {"concept": 2, "instruct": 2, "fluency": 2, "harmonic mean": 2}
    assert after["strength"] == before["strength"]


def test_an_unreachable_judge_leaves_the_cell_open(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="the judge needs the extra: pip install easyedit-split[judge]")
    from easyedit_split.evaluation.client import JudgeSettings

    with judge_server(lambda r, n: Answer("", 500)) as server:
        endpoint = JudgeSettings("k", server.base_url, retries=0)
        monkeypatch.setattr(JudgeSettings, "from_environment", classmethod(lambda cls: endpoint))
        task = _task(place, "pairs-0/vanilla/s0")
        result = run_cell(task)
        assert result["judge"]["unreachable"] == 9
        assert result["judge"]["scores"]["concept"] is None
        assert not is_done(task)


def test_a_cell_that_cannot_be_run_is_reported_and_the_others_go_on(place: Path) -> None:
    file = place / "hparams" / "mine" / "pairs" / "split_vector.yaml"
    file.write_text(file.read_text().replace("layers: [1]", "layers: [7]"))
    found = plan(settings(place, seeds=[0], concepts=1))
    failures = run_tasks(found.to_run, 1, lambda text: None)
    assert list(failures) == ["pairs/split_vector/s0"]
    assert "7" in failures["pairs/split_vector/s0"]


def test_only_chooses_and_refuses_what_fits_nothing(place: Path) -> None:
    cells = [task.cell for task in plan(settings(place)).tasks]
    assert {c.method for c in selected(cells, ["*/split_*"])} == {"split"}
    assert {c.concept_id for c in selected(cells, ["pairs-1"])} == {1}
    assert len(selected(cells, ["pairs-0/vanilla/s0", "pairs-1/vanilla"])) == 2
    with pytest.raises(ConfigError, match="pairs"):
        selected(cells, ["nothing"])


def test_command_dry_run_then_two_processes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "reproduce", str(place / "hparams" / "mine"), "--only", "pairs-0/vanilla", "--only", "pairs-1/vanilla",
        "--jobs", "2", f"model_name_or_path={place / 'tiny-qwen2'}", f"output_dir={place / 'out'}",
        "max_new_tokens=3", "points=15",
    ]  # fmt: skip
    assert main([*arguments, "--dry-run"]) == 0
    assert "to run" in capsys.readouterr().out
    assert not (place / "out" / "cells").exists()
    assert main(arguments) == 0
    assert "index.html" in capsys.readouterr().out
    assert len(list((place / "out" / "cells").rglob("result.json"))) == 2


def test_killed_runs_leave_no_process_behind_and_keep_what_was_done(place: Path) -> None:
    arguments = [
        sys.executable, "-m", "easyedit_split", "reproduce", str(place / "hparams" / "mine"), "--jobs", "2",
        f"model_name_or_path={place / 'tiny-qwen2'}", f"output_dir={place / 'out'}", "max_new_tokens=3", "points=15",
        "n_held_out=4", "n_boot=5", "seeds=[0,1]",
    ]  # fmt: skip
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert run.stdout is not None
    with run.stdout as said:
        assert any(line.startswith("[1/") for line in said)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.kill()
        run.wait()
    found = plan(settings(place))
    kept = {t.result_file: t.result_file.stat().st_mtime_ns for t in found.tasks if t not in found.to_run}
    assert 1 <= len(kept) < len(found.tasks)
    again = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert len(children) >= 2
    deadline = time.monotonic() + 30
    while any(_alive(int(child)) for child in children):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.2)
    assert again.wait() == 0
    assert plan(settings(place)).to_run == []
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sedes": [1]}, "seeds"), ({"seeds": []}, "seeds"), ({"seeds": ["x"]}, "whole numbers"),
        ({"points": 3}, "points"), ({"judge": "apis"}, "api"), ({"budget": -1}, "budget"), ({"n_test": 1}, "n_test"),
        ({"device_map": {"": 0}}, "device_map=auto"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid_settings("demo", values)


def test_a_folder_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="gemma-2-9b-it"):
        grid_settings("hparams/gemma-2-9b", {})


def test_a_layer_given_on_the_command_line_wins_over_the_files(place: Path) -> None:
    default, zero = (plan(settings(place, **more), ["*/split_*"]).tasks[0] for more in ({}, {"layers": [0]}))
    assert (default.hp.layers, zero.hp.layers) == ((1,), (0,))
    assert default.inputs != zero.inputs
    assert settings(place, layers=0).layers == (0,)
    with pytest.raises(ConfigError, match="layers = .* whole numbers"):
        settings(place, layers=["x"])


def test_a_model_without_files_has_those_for_any(place: Path) -> None:
    """One command on a folder: named after the model, its layer and rate chosen for it."""
    model = place / "tiny-qwen2"
    more = {"output_dir": str(place / "out"), "seeds": [0], "max_new_tokens": 3, "n_train": 8, "n_held_out": 4,
            "n_test": 3, "n_train_sweep": 4, "points": 15, "n_boot": 5, "judge": "none"}  # fmt: skip
    chosen = grid_settings(str(model), more)
    assert (chosen.model, chosen.model_label, Path(chosen.folder).name) == (str(model), "tiny-qwen2", "any")
    assert grid_settings("smollm2", {}).model == "smollm2"
    assert grid_settings("smollm2", {}).model_label == "smollm2-135m-instruct"
    found = plan(chosen, ["warmth/split_lora", "warmth/diffmean_vector"])
    assert len(found.tasks) == 2
    assert run_tasks(found.tasks, 1, lambda text: None) == {}
    for task in found.tasks:
        assert (task.folder / "layer_1.safetensors").exists()
    assert "tiny-qwen2" in write_outputs(chosen, found.tasks).markdown.read_text()


def test_paper_data_without_a_folder_is_left_out_with_a_remedy(place: Path) -> None:
    folder = place / "hparams" / "mine" / "psychopathy"
    folder.mkdir()
    (folder / "diffmean_vector.yaml").write_text("alg_name: unified_diffmean\nlayers: [1]\n")
    found = plan(settings(place))
    assert len(found.notes) == 1 and "data_dir" in found.notes[0]
    with pytest.raises(ConfigError, match="data_dir"):
        plan(settings(place), ["psychopathy"])


def _task(place: Path, key: str, **more: Any) -> Any:
    (task,) = plan(settings(place, **more), [key]).tasks
    return replace(task)


def _count_training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    trained: list[str] = []
    real = cell_module.train_layer

    def counted(*arguments: Any, **more: Any) -> Any:
        trained.append("once")
        return real(*arguments, **more)

    monkeypatch.setattr(cell_module, "train_layer", counted)
    return trained


@pytest.fixture(autouse=True)
def fresh_model() -> None:
    cell_module.cached_model.cache_clear()
