"""Changes on a hub: huggingface_hub itself, against a server on the loopback address."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import Hub
from laws import assert_close, joint, logits, noisy
from swept import write_sweep
from tiny import tiny_model, tiny_tokenizer, token_batch

import easyedit_split as es
from easyedit_split.analysis.pipeline import analyse
from easyedit_split.calibrate import calibration_of
from easyedit_split.changes.forms import FORMS
from easyedit_split.cli import main
from easyedit_split.errors import ArtifactError, ConfigError
from easyedit_split.formats.card import model_card
from easyedit_split.serving.catalogue import Catalogue

# huggingface_hub's own, on uploading bytes
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
FILE = "layer_1.safetensors"


@pytest.fixture
def change(lend: Any) -> es.SteeringArtifact:
    return noisy(lend("qwen2"), "vector")


def calibrated(artifact: es.SteeringArtifact, folder: Path) -> tuple[es.SteeringArtifact, es.SweepTable]:
    table = write_sweep(artifact, folder / "sweep.parquet")
    return replace(artifact, calibration=calibration_of(analyse(table, 0.5))), table


def file_of(artifact: es.SteeringArtifact, folder: Path) -> bytes:
    return artifact.save(folder).read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_back_is_what_was_pushed(lend: Any, hub: Hub, tmp_path: Path, form: str) -> None:
    model, ids = lend("qwen2"), token_batch()
    pushed, table = calibrated(noisy(model, form, positions="answer"), tmp_path)
    url = pushed.push_to_hub("me/change", license="mit", sweep=table, private=True)
    assert set(hub.files("me/change")) == {".gitattributes", FILE, "README.md", "curves.png"}
    assert hub.files("me/change")["curves.png"].startswith(b"\x89PNG")
    assert hub.repositories["me/change"].private
    assert len(hub.repositories["me/change"].commits) == 2  # the repository's own, and ours
    assert url == f"{hub.url}/me/change/commit/{list(hub.repositories['me/change'].commits)[-1]}"
    for back in (es.load("me/change"), es.SteeringArtifact.from_hub("me/change")):
        assert (back.id, back.site, back.positions) == (pushed.id, pushed.site, pushed.positions)
        assert (back.calibration, back.origin) == (pushed.calibration, pushed.origin)
        with back.attach(model, 1.5):
            found = logits(model, ids)
        with pushed.attach(model, 1.5):
            assert_close(found, logits(model, ids), 0.0)


def test_by_the_environment_alone(change: es.SteeringArtifact, hub: Hub, tmp_path: Path) -> None:
    """As a user has it: HF_ENDPOINT and no more, in a process of its own."""
    change.save(tmp_path / "change")
    code = "import easyedit_split as es; es.load('change').push_to_hub('me/change'); print(es.load('me/change').id)"
    settings = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(Path(es.__file__).parents[1]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == change.id


def test_a_second_push_replaces_what_the_first_wrote(lend: Any, hub: Hub, tmp_path: Path) -> None:
    first, table = calibrated(noisy(lend("qwen2"), "lora"), tmp_path)
    first.push_to_hub("me/change", sweep=table)
    foreign = {"LICENSE": b"mine", "layer_x.safetensors": b"mine too"}
    hub.add("me/change", {**hub.files("me/change"), **foreign, "layer_1-3.safetensors": b"of an earlier push"})
    old = list(hub.repositories["me/change"].commits)[1]
    second = noisy(lend("qwen2"), "vector", layer=2)
    second.push_to_hub("me/change")
    kept = {".gitattributes", "layer_2.safetensors", "README.md", "LICENSE", "layer_x.safetensors"}
    assert set(hub.files("me/change")) == kept
    hub.repositories["me/change"].commit({k: v for k, v in hub.files("me/change").items() if "x" not in Path(k).stem})
    assert es.load("me/change").id == second.id
    assert es.load("me/change", revision=old).id == es.load(f"me/change@{old}").id == first.id
    assert es.load("me/change@main", revision="main").id == second.id
    with pytest.raises(ConfigError, match="name two revisions: give one"):
        es.load("me/change@main", revision=old)


class _Exploding:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("run"), "this ran"))


def test_nothing_but_the_change_is_fetched(
    change: es.SteeringArtifact, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = {
        "layer_1.pt": pickle.dumps(_Exploding()), "pytorch_model.bin": pickle.dumps(_Exploding()),
        "modeling.py": b"open('run', 'w')", "link.safetensors": b"../../../secret", "sub/layer_1.safetensors": b"x",
    }  # fmt: skip
    hub.add("me/change", {FILE: file_of(change, tmp_path / "own"), **foreign})
    assert es.load("me/change").id == change.id
    fetched = {r.rpartition("/")[2] for r in hub.requests if r.startswith("GET") and "/resolve/" in r}
    assert fetched == {FILE}
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_change_changes_nothing(
    change: es.SteeringArtifact, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change.save(tmp_path / "secret")
    link = f"../../../../secret/{FILE}".encode()  # what a symbolic link is in Git: the text of its target
    whole = file_of(change, tmp_path / "own")
    for number, content in enumerate((pickle.dumps(_Exploding()), link, b"", whole[:-9], whole[:-1] + b"\x01")):
        hub.add(f"me/bad-{number}", {FILE: content})
        with pytest.raises(ArtifactError, match=rf"^me/bad-{number}/{FILE} is broken \("):
            es.load(f"me/bad-{number}")
    assert not (tmp_path / "run").exists()
    hub.add("me/empty", {"README.md": b"nothing here", "layer_1.pt": b"x"})
    with pytest.raises(ArtifactError, match=r"the hub's me/empty has no layer_<l>.safetensors"):
        es.load("me/empty")


@pytest.mark.parametrize("form", FORMS)
def test_a_change_of_several_layers_is_one(lend: Any, hub: Hub, form: str) -> None:
    model = lend("qwen2")
    pushed = joint(model, form)
    pushed.push_to_hub("me/joint", base_model="org/base")
    files = [name for name in hub.files("me/joint") if name.endswith(".safetensors")]
    assert len(files) == 1
    assert es.load("me/joint").id == pushed.id
    with es.load("me/joint").attach(model, 1.5):
        found = logits(model, token_batch())
    with pushed.attach(model, 1.5):
        assert_close(found, logits(model, token_batch()), 0.0)
    noisy(model, form).push_to_hub("me/joint", base_model="org/base")
    assert FILE in hub.files("me/joint") and files[0] not in hub.files("me/joint")


def test_two_changes_in_one_repository(lend: Any, hub: Hub, tmp_path: Path) -> None:
    changes = [noisy(lend("qwen2"), "lora", layer=k) for k in (1, 2)]
    hub.add("me/two", {f"layer_{c.site.layer}.safetensors": file_of(c, tmp_path) for c in changes})
    held = r"^me/two holds layer_1.safetensors, layer_2.safetensors: choose one with layer="
    for read in (es.load, es.SteeringArtifact.from_hub):
        with pytest.raises(ArtifactError, match=held):
            read("me/two")
    assert es.load("me/two", layer=2).id == changes[1].id


def test_a_copy_that_was_read_once_is_there_without_a_network(
    change: es.SteeringArtifact, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    change.push_to_hub("me/change")
    es.load("me/change")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert es.load("me/change").id == change.id
    with pytest.raises(ArtifactError, match="me/other is no file or folder here, and .* out of reach"):
        es.load("me/other")
    assert len(hub.requests) == asked


def test_no_path_of_this_machine_is_written(change: es.SteeringArtifact, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "a-private-place" / "my-model"
    origin = {"easyedit": str(folder / "layer_1.pt"), "sum": [{"easyedit": str(folder / "layer_1.pt")}]}
    local = replace(change, model={**change.model, "name": str(folder)}, origin=origin)
    for base in (None, "org/base"):
        local.push_to_hub("me/change", base_model=base)
        files = hub.files("me/change")
        assert not any(b"a-private-place" in content for content in files.values())
        assert es.load("me/change").model["name"] == (base or "my-model")
        assert es.load("me/change").origin == {"easyedit": "layer_1.pt", "sum": [{"easyedit": "layer_1.pt"}]}
        head = yaml.safe_load(files["README.md"].decode().split("---")[1])
        assert head.get("base_model") == base


def test_mistakes_are_one_sentence(
    change: es.SteeringArtifact, hub: Hub, lend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("change", "a/b/c", "/tmp/x", "me/", "me/ä", "me/a b"):
        with pytest.raises(ConfigError, match="is no name on the hub: write OWNER/NAME"):
            change.push_to_hub(wrong)
        with pytest.raises(ConfigError, match="is no name on the hub"):
            es.SteeringArtifact.from_hub(wrong)
    with pytest.raises(ConfigError, match=r"base_model './here' is no name on the hub"):
        change.push_to_hub("me/change", base_model="./here")
    for wrong in ("MIT\nevil: true", "", "All rights reserved"):
        with pytest.raises(ConfigError, match="is no licence of the hub's kind"):
            change.push_to_hub("me/change", license=wrong)
    bare = replace(change, model={})
    with pytest.raises(ConfigError, match="does not say which model it is for: give base_model"):
        bare.push_to_hub("me/change")
    assert "| base model | org/base |" in model_card(replace(bare, model={"name": "org/base"}), "me/change")
    other = noisy(lend("qwen2"), "lora")
    with pytest.raises(ArtifactError, match="the sweep is of another change"):
        change.push_to_hub("me/change", sweep=write_sweep(other, tmp_path / "s.parquet"))
    assert "me/change" not in hub.repositories  # refused before anything was written
    with pytest.raises(ArtifactError, match=r"me/none could not be read from the hub \(no such repository"):
        es.load("me/none")
    change.push_to_hub("me/change")
    with pytest.raises(ArtifactError, match="it has no such revision"):
        es.load("me/change", revision="0" * 40)
    change.save(tmp_path / "own")
    with pytest.raises(ConfigError, match="only a repository on the hub"):
        es.load(tmp_path / "own", revision="main")
    hub.refused = "the card's metadata are wrong"
    with pytest.raises(ArtifactError, match="me/change could not be written to the hub") as error:
        noisy(lend("qwen2"), "lora").push_to_hub("me/change")
    assert "\n" not in str(error.value)
    assert es.load("me/change").id == change.id
    asked = len(hub.requests)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(
        ArtifactError, match=r"no folder to write the card in \(No such file or directory\): set TMPDIR"
    ):
        change.push_to_hub("me/change")
    assert len(hub.requests) == asked


@pytest.mark.filterwarnings("ignore:no strength given")
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*lora_bias.*")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("known", "layers"), [(True, 1), (False, 1), (False, 3)])
def test_the_card_s_own_lines_run(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, known: bool, layers: int
) -> None:
    """Every line of the card, in a folder where the base model's id leads to a model."""
    monkeypatch.chdir(tmp_path)
    tiny_model("qwen2").save_pretrained("org/base")
    tiny_tokenizer().save_pretrained("org/base")
    model, _ = es.load_model("org/base")
    change = noisy(model, form) if layers == 1 else joint(model, form)
    if known:
        change, _ = calibrated(change, tmp_path)
    change.push_to_hub("me/change", base_model="org/base", license="mit")
    blocks = re.findall(r"```python\n(.*?)```", hub.files("me/change")["README.md"].decode(), re.DOTALL)
    assert len(blocks) == 3
    assert ("m=1.0" in blocks[0]) is not known
    for block in blocks:
        exec(block, {})
    (lines,) = re.findall(r"```bash\n(.*?)\n```", hub.files("me/change")["README.md"].decode(), re.DOTALL)
    generate, serve = map(shlex.split, lines.split("\n"))
    assert main([*generate[1:], "max_new_tokens=2"]) == 0
    assert serve[:2] == ["easyedit-split", "serve"] and Catalogue.read(serve[2:3]).names == ["change"]
    assert es.load("change").id == change.id
    assert (tmp_path / "change" / "layer_1.pt").exists() is change.acts_at_block_output
    m = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    expected = change.calibration.m if change.calibration else 1.0
    assert m["lora_alpha"] / m["r"] == pytest.approx(expected, rel=1e-5)


def test_the_card_says_what_the_artifact_knows(change: es.SteeringArtifact, tmp_path: Path) -> None:
    known, _ = calibrated(change, tmp_path)
    named = replace(known, model={**known.model, "name": "org/base"}, origin={"pairs": 7, "pairs_sha256": "ab" * 32})
    card = model_card(named, "me/change", "mit", "advice")
    head = yaml.safe_load(card.split("---")[1])
    assert head == {
        "base_model": "org/base", "base_model_relation": "adapter", "library_name": "easyedit_split", "license": "mit",
        "pipeline_tag": "text-generation", "tags": ["easyedit_split", "activation-steering", "steering-vector"],
    }  # fmt: skip
    assert str(known.calibration) in card and "swept from -6 to 6" in card and "(curves.png)" in card
    assert "layer 1, mlp.down\\_proj" in card and "7 pairs, hash abababab" in card and change.id in card
    assert known.calibration is not None and known.calibration.reason not in card
    alone = model_card(named, "me/change")
    assert "curves.png" not in alone and known.calibration.reason in alone
    assert "keeps no strength" in model_card(replace(named, calibration=None), "me/change")
    unsure = replace(named, calibration=replace(known.calibration, reliable=False))
    assert "is not used unseen" in model_card(unsure, "me/change") and "m=1.0" in model_card(unsure, "me/change")


def test_hostile_words_stay_words(change: es.SteeringArtifact) -> None:
    """Texts of a data set's or a file's author can neither break the metadata nor become HTML, a row or code."""
    evil = "x\n---\nlicense: evil\n| a | b |\n<img src=x>\n```\n[a](http://b)"
    told = replace(
        change, model={**change.model, "name": 'a"; import os #'}, origin={"concept": evil, "config": {evil: 1}}
    )
    card = model_card(told, "me/change")
    assert yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n")) == yaml.safe_load(card.split("---")[1])
    assert "license" not in yaml.safe_load(card.split("---")[1])
    assert "<img" not in card.replace("\\<img", "") and "](http" not in card.replace("\\]", "")
    assert card.count("```") % 2 == 0 and card.count("\n---\n") == 1
    (line,) = [line for line in card.splitlines() if line.startswith("model, tokenizer")][:1]
    compile(line, "card", "exec")


def test_nothing_of_a_hub_is_loaded_for_a_folder(change: es.SteeringArtifact, tmp_path: Path) -> None:
    change.save(tmp_path / "own")
    assert es.load(tmp_path / "own").id == es.load(str(tmp_path / "own" / FILE)).id == change.id
    with pytest.raises(ArtifactError, match="does not hold an artifact"):
        es.load(tmp_path / "none")
    assert torch.equal(es.load(tmp_path / "own").delta.bias_term(), change.delta.bias_term())  # type: ignore[arg-type]
