"""Tests of the vLLM plugin. Those that need vLLM are skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
HAS_VLLM = importlib.util.find_spec("vllm") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="vLLM is not installed: see docs/serving.md for the packages of a processor")
    for item in items:
        if item.get_closest_marker("vllm") and not HAS_VLLM:
            item.add_marker(skip)
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # vLLM's own


@pytest.fixture(scope="session")
def demo() -> Any:
    """The demo model and its tokenizer."""
    from easyedit_split import load_model

    return load_model("demo")


@pytest.fixture(scope="session")
def folder(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of artifacts for the demo model, one a name of `changes.CHANGES`."""
    from changes import write_artifacts

    return write_artifacts(demo[0], tmp_path_factory.mktemp("artifacts"))
