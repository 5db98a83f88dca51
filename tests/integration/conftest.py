"""What the tests of commands share: a model folder and a file of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from laws import TEXT_PAIRS
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `from_pretrained` wants it."""
    path = tmp_path_factory.mktemp("model")
    tiny_model("qwen2", layers=3).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"question": p.question, "matching": p.matching, "not_matching": p.not_matching} for p in TEXT_PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
