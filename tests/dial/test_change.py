"""Which changes a folder holds, their dials' ends, and folders that hold none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from laws import TEXT_PAIRS, noisy
from swept import write_sweep

from easyedit_split import sweep
from easyedit_split.analysis.pipeline import analyse
from easyedit_split.calibrate import calibration_of
from easyedit_split.dial.asked import Strengths
from easyedit_split.dial.change import DialledChange, _step, find_changes
from easyedit_split.dial.recipes import _attached
from easyedit_split.errors import ArtifactError


def test_a_runs_folder_is_all_its_changes(run_folder: Path) -> None:
    found = find_changes([run_folder])
    assert [c.name for c in found] == sorted(p.name for p in run_folder.iterdir())
    for change in found:
        told = change.described()
        assert (told["low"], told["high"], told["step"]) == (-3.0, 3.0, 0.01)
        assert told["curves"]["pairs"] == 6
    assert [c.name for c in find_changes([run_folder / "mood"])] == ["mood"]


def test_without_a_sweep_the_dial_goes_as_far_as_training_twice(lend: Any, tmp_path: Path) -> None:
    artifact = noisy(lend("qwen2"))
    artifact.origin["config"] = {"steering_factors": [0.5, 3.0]}
    artifact.save(tmp_path)
    (change,) = find_changes([tmp_path])
    assert change.range == (-6.0, 6.0) and change.curves is None


@pytest.mark.parametrize("reliable", [True, False])
def test_a_change_of_the_hub_has_the_strength_that_it_keeps(
    lend: Any, hub: Any, tmp_path: Path, reliable: bool
) -> None:
    artifact = noisy(lend("qwen2"))
    table = write_sweep(artifact, tmp_path / "sweep.parquet")
    kept = replace(calibration_of(analyse(table, 0.5)), reliable=reliable)
    held = {"layer_1.safetensors": replace(artifact, calibration=kept).save(tmp_path).read_bytes()}
    hub.add("me/change", {**held, "sweep.parquet": b"no sweep"})
    (change,) = find_changes(["me/change@main"])
    assert (change.name, change.home, change.file) == ("change", "me/change@main", "me/change@main")
    assert change.range == (-6.0, 6.0) and change.curves is None
    told = change.described()
    assert told["best"] == {"m": kept.m, "interval": kept.interval, "reliable": reliable}
    assert told["advice"].endswith(f"so there are no curves; the change keeps a strength: {kept}.")
    assert _attached(change, Strengths(1.0, 1.0)) == "es.load('me/change@main').attach(model, m=1.0)"
    (foreign,) = find_changes(["me/change"], any_model=True)
    assert foreign.best is None and foreign.advice.endswith("no curves and no strength to recommend.")
    hub.add("me/change", {**held, "layer_2.safetensors": noisy(lend("qwen2"), layer=2).save(tmp_path).read_bytes()})
    assert [(c.name, c.layer) for c in find_changes(["me/change"])] == [("change layer 1", 1), ("change layer 2", 2)]


def test_several_layers_in_one_folder_are_several_changes(lend: Any, tmp_path: Path) -> None:
    for layer in (1, 2):
        noisy(lend("qwen2"), layer=layer).save(tmp_path / "both")
    assert [(c.name, c.layer) for c in find_changes([tmp_path / "both"])] == [("both layer 1", 1), ("both layer 2", 2)]


def test_equal_names_are_told_apart_by_their_folders(lend: Any, tmp_path: Path) -> None:
    for run in "ab":
        noisy(lend("qwen2")).save(tmp_path / run / "vector")
    names = [c.name for c in find_changes([tmp_path / "a", tmp_path / "b"])]
    assert names == [str(tmp_path / "a" / "vector"), str(tmp_path / "b" / "vector")]


def test_a_sweep_belongs_to_its_own_change(run_folder: Path, lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Of two layers in one folder the one that was swept; a sweep of neither is refused."""
    model = lend("qwen2")
    first, second = (noisy(model, layer=layer, seed=layer) for layer in (1, 2))
    for artifact in (first, second):
        artifact.save(tmp_path)
    sweep(model, tokenizer, TEXT_PAIRS, second, [-1.0, 0.0, 1.0], "sum").save(tmp_path / "sweep.parquet")
    assert [c.table is not None for c in find_changes([tmp_path])] == [False, True]
    shutil.copy(run_folder / "mood" / "sweep.parquet", tmp_path / "sweep.parquet")
    with pytest.raises(ArtifactError, match="is of another change"):
        find_changes([tmp_path])


def test_what_a_failed_run_kept_is_no_change(lend: Any, tmp_path: Path) -> None:
    noisy(lend("qwen2")).save(tmp_path / "last_good")
    with pytest.raises(ArtifactError, match="holds no change"):
        find_changes([tmp_path])


def test_a_folder_without_a_change_and_a_change_given_twice(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no change: give the folder that train wrote"):
        find_changes([tmp_path])
    with pytest.raises(ArtifactError, match="holds no change"):
        find_changes([tmp_path / "nowhere"])
    with pytest.raises(ArtifactError, match="a change is given twice"):
        find_changes([run_folder, run_folder / "mood"])


@pytest.mark.parametrize(("width", "step"), [(12, 0.01), (40, 0.1), (0.8, 0.001), (4000, 10), (0, 0.01)])
def test_a_step_is_a_power_of_ten(width: float, step: float) -> None:
    assert _step(width) == pytest.approx(step)


def test_the_change_says_what_it_is(lend: Any) -> None:
    told = DialledChange("x", Path("y"), None, noisy(lend("llama"), "lora"), None, None).described()
    assert (told["form"], told["site"], told["positions"]) == ("lora", "layer 1, mlp.down_proj", "all")
