"""The command line on a change of several layers: every command takes it as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import assert_close, logits
from tiny import token_batch

from easyedit_split import SteeringArtifact, SweepTable
from easyedit_split.cli import main
from easyedit_split.dial.change import find_changes
from easyedit_split.models.loading import load_model

KEYS = ["layers=[1,2,3]", "joint=true", "n_epochs=2", "batch_size=2", "lr=0.05"]
FACTORS = "factors=[-8,-6,-4,-3,-2,-1,-0.5,0,0.5,1,2,3,4,6,8]"


@pytest.fixture(scope="module")
def run(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A vector trained at three layers together, and its sweep."""
    out = tmp_path_factory.mktemp("runs") / "run"
    shared = [f"model_name_or_path={model}", f"output_dir={out}", f"train_data={data}", f"test_data={data}"]
    assert main(["train", "intervention_method=vector", *KEYS, *shared]) == 0
    assert main(["sweep", "--artifact", str(out), *shared, FACTORS]) == 0
    yield out


def _said(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int = 0) -> str:
    capsys.readouterr()
    assert main(arguments) == status
    found = capsys.readouterr()
    return found.err if status == 2 else found.out


def test_trained_kept_and_swept_as_one(run: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, table = SteeringArtifact.load(run), SweepTable.load(run / "sweep.parquet")
    assert str(artifact.site) == "layers 1-3, residual" == table.header["artifact"]["site"]
    assert table.header["artifact"]["id"] == artifact.id
    again = ["train", "intervention_method=vector", *KEYS, f"model_name_or_path={model}", f"train_data={data}"]
    said = _said(capsys, [*again, f"output_dir={run}"])
    assert f"layers 1-3: vector at residual, 5 pairs -> {run / 'layer_1-3.safetensors'}" in said
    assert SteeringArtifact.load(run).id == artifact.id
    for other, message in (
        ("joint=false", "layers together 1-3, here none"),
        ("layers=[1,2]", "layers together 1-3, here 1-2"),
    ):
        assert message in _said(capsys, [*again, f"output_dir={run}", other], 2)
    assert sorted(p.name for p in run.glob("layer_*")) == [
        "layer_1-3.safetensors", "layer_1.pt", "layer_2.pt", "layer_3.pt",
    ]  # fmt: skip


def test_a_strength_is_found_kept_and_used(run: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from easyedit_split.analysis.pipeline import analyse
    from easyedit_split.calibrate import write_calibration

    assert "R2" in _said(capsys, ["fit", str(run)])
    table = SweepTable.load(run / "sweep.parquet")
    found = analyse(table, 50.0)  # a random model has little utility to hold
    path, kept = write_calibration(run, table, found)
    assert path == run / "layer_1-3.safetensors" and SteeringArtifact.load(run).calibration == kept
    ask = ["generate", "--artifact", str(run), "--prompt", "Hi", f"model_name_or_path={model}", "max_new_tokens=3"]
    if kept.reliable:
        assert f"# m = {kept.m:g}" in _said(capsys, ask)
    else:
        assert "is not reliable" in _said(capsys, ask, 2)
    assert "# m = 2" in _said(capsys, [*ask, "-m", "2"])
    assert "# m = 2" in _said(capsys, [*ask, "-m", "2", "layers=[1,2,3]", "joint=true"])
    assert "does not hold layer_2.safetensors but layer_1-3.safetensors" in _said(capsys, [*ask, "layers=[2]"], 2)


def test_reported_checked_and_dialled(run: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "report" in _said(capsys, ["report", str(run)])
    assert "layers 1-3, residual" in (run / "report.html").read_text(encoding="utf-8")
    check = ["check", str(run), "--pairs", str(data), f"model_name_or_path={model}", "-m", "0.5"]
    said = _said(capsys, [*check, "--gain", "-100", "--max-utility-drop", "1000"])
    assert "passed: m = 0.5 gains" in said
    (change,) = find_changes([run])
    assert change.table is not None and change.described()["site"] == "layers 1-3, residual"


@pytest.mark.parametrize("to", ["hf", "peft", "gguf", "easyedit"])
def test_exported(run: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str) -> None:
    out = tmp_path / ("v.gguf" if to == "gguf" else "out")
    export = ["export", "--artifact", str(run), "--to", to, "--out", str(out), "-m", "1.5"]
    if to in ("hf", "peft"):  # a vector has no place in either of them: refused, in one sentence that names the place
        said = _said(capsys, [*export, f"model_name_or_path={model}"], 2)
        assert "db" in said
        return
    said = _said(capsys, export)
    loaded, _ = load_model(model)
    ids = token_batch()
    with SteeringArtifact.load(run).attach(loaded, 1.5):
        expected = logits(loaded, ids)
    if to == "easyedit":
        assert "vector of layers 1, 2, 3, m = 1.5 ->" in said
        vectors = {k: torch.load(tmp_path / f"out/layer_{k}.pt", weights_only=True) for k in (1, 2, 3)}
        hooks = [
            loaded.model.layers[k].register_forward_hook(lambda m, a, out, v=v: out + v) for k, v in vectors.items()
        ]
        found = logits(loaded, ids)
        for hook in hooks:
            hook.remove()
        assert_close(found, expected)
        return
    assert "direction.1, direction.2, direction.3, m = 1.5" in said
    said = _said(capsys, ["import", str(out), "--out", str(tmp_path / "back"), f"model_name_or_path={model}"])
    assert "vector of width 32 at layers 1-3, residual" in said
    with SteeringArtifact.load(tmp_path / "back").attach(loaded, 1.0):
        assert_close(logits(loaded, ids), expected)


@pytest.mark.parametrize("form", ["lora", "local_weight"])
def test_weights_exported(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    shared = [f"model_name_or_path={model}", f"output_dir={tmp_path / 'run'}", f"train_data={data}"]
    assert main(["train", f"intervention_method={form}", *KEYS, *shared]) == 0
    whole: dict[str, Any] = {"peft": ["--rank", "32"] if form == "local_weight" else [], "hf": []}
    loaded, _ = load_model(model)
    with SteeringArtifact.load(tmp_path / "run").attach(loaded, m1=1.5):
        expected = logits(loaded, token_batch())
    for to, options in whole.items():
        export = ["export", "--artifact", str(tmp_path / "run"), "--to", to, "--out", str(tmp_path / to), "-m", "1.5"]
        options = [*options, "--without-db"] if form == "local_weight" else options
        assert "1.5" in _said(capsys, [*export, *options, f"model_name_or_path={model}"])
    merged, _ = load_model(tmp_path / "hf")
    assert_close(logits(merged, token_batch()), expected)
    back = tmp_path / "back"
    assert main(["import", str(tmp_path / "peft"), "--out", str(back), f"model_name_or_path={model}"]) == 0
    with SteeringArtifact.load(back).attach(loaded, 1.0):
        assert_close(logits(loaded, token_batch()), expected, 3e-5)


def test_in_a_folder_with_others_it_is_named_by_its_layers(
    run: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line, from Python, and in what the page hands out."""
    from easyedit_split.dial.asked import Strengths
    from easyedit_split.dial.recipes import _attached, _which
    from easyedit_split.errors import ArtifactError

    whole = SteeringArtifact.load(run)
    for artifact in (whole, whole.parts[1], SteeringArtifact.joined(whole.parts[:2])):
        artifact.save(tmp_path)
    assert SteeringArtifact.load(tmp_path, [3, 1, 2]).id == whole.id
    assert SteeringArtifact.load(tmp_path, 2).id == whole.parts[1].id
    with pytest.raises(ArtifactError, match="holds layer_1-2.safetensors, layer_1-3.safetensors, layer_2.safetensors"):
        SteeringArtifact.load(tmp_path)
    with pytest.raises(ArtifactError, match="does not hold layer_2-3.safetensors but"):
        SteeringArtifact.load(tmp_path, [2, 3])
    ask = ["generate", "--artifact", str(tmp_path), "--prompt", "Hi", f"model_name_or_path={model}", "-m", "2"]
    assert "choose one with layer=" in _said(capsys, ask, 2)
    changes = {change.layer: change for change in find_changes([tmp_path])}
    assert set(changes) == {(1, 2), (1, 2, 3), 2}
    assert changes[(1, 2, 3)].file == str(tmp_path / "layer_1-3.safetensors")
    assert ", layer=(1, 2, 3))" in _attached(changes[(1, 2, 3)], Strengths(2.0, 2.0))
    for layer in changes:
        assert "# m = 2" in _said(capsys, [*ask, *_which(layer)])
