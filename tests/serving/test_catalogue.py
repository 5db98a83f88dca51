"""What a server offers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from changes import CHANGES, SWEPT
from swept import write_sweep

from easyedit_split import SteeringArtifact
from easyedit_split.errors import ArtifactError, ConfigError
from easyedit_split.serving.catalogue import Catalogue
from easyedit_split.serving.compatibility import check_model


def test_it_goes_through_json(folder: Path) -> None:
    catalogue = Catalogue.read([folder / name for name in CHANGES])
    assert Catalogue.of(json.loads(json.dumps(catalogue.config()))) == catalogue
    assert Catalogue.of({}) is None and Catalogue.of(None) is None
    assert catalogue.names == list(CHANGES)


def test_a_change_of_several_layers_is_one_entry(folder: Path) -> None:
    one, several = Catalogue.read([folder / "lora", folder / "layers"]).entries
    assert [(p.layer, p.component) for p in one.parts] == [(3, "mlp.down_proj")]
    assert [p.layer for p in several.parts] == [1, 1, 3] and Path(several.file).name == "layer_1_3.safetensors"
    assert several.load().site.sites[1].component == "self_attn.v_proj"


def test_a_name_is_the_folder_s_or_given(folder: Path) -> None:
    catalogue = Catalogue.read([folder / "lora", f"kind={folder / 'vector'}", folder / "local" / "layer_3.safetensors"])
    assert catalogue.names == ["lora", "kind", "local"]


@pytest.mark.parametrize("name", ["base", "a b", "-x", "a@2", "a/b", "", "x" * 65, "é"])
def test_a_name_that_no_request_could_say_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        Catalogue.read([f"{name}={folder / 'lora'}"])


def test_a_name_given_twice_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="two artifacts are named 'lora'"):
        Catalogue.read([folder / "lora", f"lora={folder / 'vector'}"])


def test_the_sweep_beside_it_gives_strength_and_range(folder: Path) -> None:
    swept, other = Catalogue.read([folder / SWEPT, folder / "lora"]).entries
    assert swept.swept == (-6.0, 6.0) and swept.recommended is not None and 0 < swept.recommended < 6
    assert other.swept is None and other.recommended is None


def test_another_change_s_sweep_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "lora", tmp_path / "lora")
    write_sweep(SteeringArtifact.load(folder / "vector"), tmp_path / "lora" / "sweep.parquet")
    with pytest.raises(ArtifactError, match="the sweep of another change"):
        Catalogue.read([tmp_path / "lora"])


def test_a_broken_or_missing_artifact_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not hold an artifact"):
        Catalogue.read([tmp_path])
    file = tmp_path / "lora" / "layer_3.safetensors"
    shutil.copytree(folder / "lora", file.parent)
    served = Catalogue.read([file.parent]).entries[0]
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="was changed after the server was started"):
        served.load()
    with pytest.raises(ArtifactError, match="is broken"):
        Catalogue.read([file.parent])


def test_changes_of_the_hub(folder: Path, hub: Any, tmp_path: Path) -> None:
    lora, vector = (next((folder / name).glob("*.safetensors")) for name in ("lora", "vector"))
    first = hub.add("me/change", {"layer_3.safetensors": lora.read_bytes()})
    foreign = (folder / SWEPT / "sweep.parquet").read_bytes()
    hub.add("me/change", {"layer_3.safetensors": vector.read_bytes(), "sweep.parquet": foreign})
    now, old = Catalogue.read(["me/change", f"older=me/change@{first}"]).entries
    assert (now.name, old.name) == ("change", "older")
    assert (now.form, old.form) == ("vector", "lora") and now.swept is None
    assert now.load().id == SteeringArtifact.load(folder / "vector").id
    assert Catalogue.read([f"me/change@{first}"]).names == ["change"]
    hub.add("me/two", {"layer_3.safetensors": lora.read_bytes(), "layer_4.safetensors": vector.read_bytes()})
    alone = r'me/two holds layer_3.safetensors, layer_4.*: save one alone with es.load\("me/two", layer=N\)'
    with pytest.raises(ArtifactError, match=alone):
        Catalogue.read(["me/two"])
    with pytest.raises(ArtifactError, match="me/none is no file or folder here, and .*no such repository"):
        Catalogue.read(["x=me/none"])
    for name in ("layer_3.safetensors", "layer_4.safetensors"):
        shutil.copy(lora, tmp_path / name)
    with pytest.raises(ArtifactError, match=r"a name serves one: give one file, as NAME=.*layer_3.safetensors"):
        Catalogue.read([tmp_path])


def test_another_model_is_refused(folder: Path, demo: Any) -> None:
    served = Catalogue.read([folder / "lora"]).entries[0]
    check_model(served, demo[0].config)
    text = SimpleNamespace(model_type="llama", num_hidden_layers=6, hidden_size=96)
    with pytest.raises(ArtifactError, match="whose architecture is qwen2, and of this one it is llama"):
        check_model(served, SimpleNamespace(get_text_config=lambda: text))
