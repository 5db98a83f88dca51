"""What the tests of commands share: a model folder and a file of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from laws import TEXT_PAIRS
from tiny import saved_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder."""
    return saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"question": p.question, "matching": p.matching, "not_matching": p.not_matching} for p in TEXT_PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
