"""The command line on a change of the hub: what a folder gives, a repository gives; what is wrong is one sentence."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from laws import noisy
from swept import write_sweep

import easyedit_split as es
from easyedit_split.analysis.pipeline import analyse
from easyedit_split.calibrate import calibration_of
from easyedit_split.cli import main

# huggingface_hub's own, on uploading bytes
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
FILE = "layer_1.safetensors"


@pytest.fixture
def change(model: Path, tmp_path: Path) -> es.SteeringArtifact:
    """A vector for the model of these tests, with a strength that was found over -6 to 6."""
    bare = noisy(es.load_model(model)[0], "vector", "residual")
    table = write_sweep(bare, tmp_path / "swept" / "sweep.parquet")
    return replace(bare, calibration=calibration_of(analyse(table, 0.5)))


@pytest.fixture
def commands(model: Path, data: Path, tmp_path: Path) -> dict[str, Callable[[str], list[str]]]:
    """Each command as it is given a change."""
    of = f"model_name_or_path={model}"
    ask = ["--prompt", "Hi", of, "max_new_tokens=4"]
    sweep, export = [f"test_data={data}", "factors=[-1,0,1]"], ["--to", "easyedit", "-m", "1.5", "--out"]
    scores = [f"test_data={data}", of, "max_new_tokens=2", f"output_dir={tmp_path / 'scores'}", "overwrite=true"]
    return {
        "generate": lambda name: ["generate", "--artifact", name, *ask],
        "sweep": lambda name: ["sweep", "--artifact", name, of, *sweep, f"output_dir={tmp_path / 'out'}"],
        "export": lambda name: ["export", "--artifact", name, *export, str(tmp_path / "out")],
        "check": lambda name: ["check", name, "--pairs", str(data), of, "--gain", "-99", "--max-utility-drop", "99"],
        "evaluate": lambda name: ["evaluate", "--artifact", name, *scores],
        "dial": lambda name: ["dial", name, "--model", str(model), "--no-browser", "--port", "99999"],
        "push": lambda name: ["push", name, "me/other", "--base-model", "org/base"],
    }


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(arguments: list[str], status: int = 0) -> str:
        capsys.readouterr()
        assert main(arguments) == status
        found = capsys.readouterr()
        return found.err if status == 2 else found.out

    return run


@pytest.mark.parametrize("command", ["generate", "sweep", "export", "check", "evaluate"])
def test_a_repository_is_as_good_as_its_folder(
    change: es.SteeringArtifact, hub: Hub, tmp_path: Path, commands: Any, said: Any, command: str
) -> None:
    change.save(tmp_path / "here")
    change.push_to_hub("me/change", base_model="org/base")
    local = said(commands[command](str(tmp_path / "here")))
    written = {file: file.read_bytes() for file in (tmp_path / "out").glob("*.pt")}
    table = es.SweepTable.load(tmp_path / "out/sweep.parquet") if command == "sweep" else None
    assert said([*commands[command]("me/change"), "overwrite=true"]) == local
    assert written == {file: file.read_bytes() for file in (tmp_path / "out").glob("*.pt")}
    assert bool(written) is (command == "export")
    if table is not None:
        assert np.array_equal(es.SweepTable.load(tmp_path / "out/sweep.parquet").loss_pos, table.loss_pos)
    if command == "generate":
        assert f"note: no strength given: {change.calibration}" in local


def test_an_older_one_by_its_revision(change: es.SteeringArtifact, hub: Hub, commands: Any, said: Any) -> None:
    change.push_to_hub("me/change", base_model="org/base")
    old = list(hub.repositories["me/change"].commits)[-1]
    replace(change.scaled(2.0), calibration=None).push_to_hub("me/change", base_model="org/base")
    assert "the change keeps no strength" in said(commands["generate"]("me/change"))
    assert str(change.calibration) in said(commands["generate"](f"me/change@{old}"))
    assert "it has no such revision" in said(commands["generate"]("me/change@v2"), 2)


def test_a_folder_of_that_name_wins(
    change: es.SteeringArtifact, hub: Hub, tmp_path: Path, commands: Any, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change.push_to_hub("me/change", base_model="org/base")
    asked = len(hub.requests)
    for name in ("me/change", "me/change@main"):
        change.scaled(2.0).save(tmp_path / name)
        assert "the change keeps no strength" in said(commands["generate"](name))
    assert len(hub.requests) == asked


def test_past_the_kept_sweep_is_said(change: es.SteeringArtifact, hub: Hub, commands: Any, said: Any) -> None:
    change.push_to_hub("me/change", base_model="org/base")
    told = said([*commands["generate"]("me/change"), "-m", "7"])
    assert "m = 7 is past the sweep: the change was swept from -6 to 6" in told


def test_what_else_was_downloaded_from_there_changes_nothing(
    change: es.SteeringArtifact, hub: Hub, tmp_path: Path, commands: Any, said: Any
) -> None:
    from huggingface_hub import snapshot_download

    bare = replace(change, calibration=None)
    write_sweep(change.scaled(2.0), tmp_path / "foreign.parquet")
    foreign = {"sweep.parquet": (tmp_path / "foreign.parquet").read_bytes(), "sub/layer_2.safetensors": b"x"}
    hub.add("me/change", {FILE: bare.save(tmp_path / "own").read_bytes(), **foreign})
    assert len(list(Path(snapshot_download("me/change")).rglob("*.*"))) == 3
    assert "the change keeps no strength, so m = 1" in said(commands["generate"]("me/change"))
    assert "port" in said(commands["dial"]("me/change"), 2)  # everything was read, and the port is the mistake


class _Exploding:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("run"), "this ran"))


@pytest.mark.parametrize("command", ["generate", "sweep", "export", "check", "evaluate", "dial", "push"])
def test_mistakes_are_one_sentence(
    change: es.SteeringArtifact, hub: Hub, tmp_path: Path, commands: Any, said: Any, command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    change.save(tmp_path / "secret")
    whole = (tmp_path / "secret" / FILE).read_bytes()
    hub.add("me/two", {FILE: whole, "layer_2.safetensors": whole})
    hub.add("me/pickle", {FILE: pickle.dumps(_Exploding())})
    hub.add("me/link", {FILE: f"../../../../secret/{FILE}".encode()})
    hub.add("me/foreign", {"layer_1.pt": b"x", "adapter_model.safetensors": whole})
    wrong = {
        "me/none": r"me/none is no file or folder here, and .* could not be read from the hub \(no such repository",
        "me/two": r"me/two holds layer_1.safetensors, layer_2.safetensors: choose one with layer=",
        "me/pickle": rf"me/pickle/{FILE} is broken \(",
        "me/link": rf"me/link/{FILE} is broken \(",
        "me/foreign": r"me/foreign is no file or folder here, and the hub's me/foreign has no layer_<l>.safetensors",
        "me/foreign@v9": r"me/foreign@v9 is no file or folder here, and .* \(it has no such revision\)",
    }
    if command == "dial":  # which shows every change of a place
        wrong["me/two"] = r"is given twice|port"
    for name, sentence in wrong.items():
        told = said(commands[command](name), 2)
        assert re.match(rf"easyedit-split: .*{sentence}", told) and told.count("\n") == 1, told
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = said(commands[command]("me/unseen"), 2)
    assert "(the hub is out of reach, and this machine keeps no copy)" in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_pushed_from_the_command_line(
    change: es.SteeringArtifact, hub: Hub, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    change.save(tmp_path / "swept")
    push = ["push", str(tmp_path / "swept"), "me/change", "--base-model", "org/base"]
    told = said([*push, "--private", "--licence", "mit"])
    commit = list(hub.repositories["me/change"].commits)[-1]
    assert told == f"vector at layer 1, residual, with the curves of its sweep -> {hub.url}/me/change/commit/{commit}\n"
    assert hub.repositories["me/change"].private
    files = hub.files("me/change")
    assert b"license: mit" in files["README.md"] and files["curves.png"].startswith(b"\x89PNG")
    assert es.load("me/change").calibration == change.calibration
    beside = tmp_path / "swept" / "sweep.parquet"
    table = es.SweepTable.load(beside)
    replace(table, header={**table.header, "any_model": True}).save(beside)
    assert "without curves" in said(push)
    assert "with --any-model, on other weights" in said([*push, "--sweep", str(beside)], 2)
    beside.unlink()
    assert "without curves, for want of a sweep ->" in said(push)
    assert set(hub.files("me/change")) == {".gitattributes", FILE, "README.md"}
    change.scaled(2.0).save(tmp_path / "swept")
    other = noisy(es.load_model("demo")[0], "vector", "residual", 2)
    other.save(tmp_path / "swept")
    assert "choose one with layer=" in said(push, 2)
    assert "layer 2" in said([*push, "layers=[2]"])
    assert "is no licence of the hub's kind" in said([*push, "layers=[2]", "--license", "All mine"], 2)
    write_sweep(change, tmp_path / "other.parquet")
    given = [*push, "layers=[2]", "--sweep", str(tmp_path / "other.parquet")]
    assert "the sweep is of another change" in said(given, 2)
    hub.refused = "the card's metadata are wrong"
    told = said([*push, "layers=[1]"], 2)
    assert "me/change could not be written to the hub" in told and told.count("\n") == 1
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    asked = len(hub.requests)
    told = said([*push, "layers=[1]"], 2)
    expected = "no token of the hub is known here: log in with `hf auth login`, or set HF_TOKEN to one"
    assert told == f"easyedit-split: {expected}\n" and len(hub.requests) == asked
