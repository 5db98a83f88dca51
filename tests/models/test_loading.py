"""Loading models, and holding one still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.errors import ConfigError
from easyedit_split.models.guards import eval_mode_frozen, memory_errors_named
from easyedit_split.models.loading import load_model
from easyedit_split.models.parts import context_length


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_model("llama").train().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_folder_is_loaded_in_the_dtype_asked_for(folder: Path, dtype: str, expected: torch.dtype) -> None:
    model, tokenizer = load_model(folder, dtype=dtype, device="cpu")
    assert {p.dtype for p in model.parameters()} == {expected}
    assert not model.training
    assert tokenizer.chat_template
    before = tiny_model("llama").state_dict()
    assert all(torch.equal(v, before[k].to(expected)) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("/no/such/folder", {}, "model folder '/no/such/folder' does not exist: check the path"),
        ("no-such-model", {}, "model 'no-such-model' cannot be loaded .*: give a model folder or a hub id"),
        ("x", {"dtype": "int8"}, "dtype 'int8' is unknown: choose one of float32"),
        ("x", {"device": "gpu"}, "device 'gpu' is unknown: give 'cpu'"),
        ("x", {"device": "cuda:4096"}, "device 'cuda:.*' is"),
    ],
)
def test_what_cannot_be_loaded(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_model(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_the_context_length(lend: Any, kind: str) -> None:
    assert context_length(lend(kind)) == 256


def test_a_model_is_held_still_and_given_back_even_after_an_error() -> None:
    model = tiny_model("gpt2").train()
    model.transformer.h[1].eval()
    model.lm_head.requires_grad_(True)
    flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    with pytest.raises(RuntimeError), eval_mode_frozen(model):
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        raise RuntimeError
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == flags


def test_what_does_not_fit_in_memory_is_said_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="does not fit in the device's memory"), memory_errors_named():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="another"), memory_errors_named():
        raise RuntimeError("another")
