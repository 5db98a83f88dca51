"""A run with two changes of the demo model, made of data whose every field is HTML and script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nasty import nasty_run

import easyedit_split as es
from easyedit_split.dial.change import find_changes
from easyedit_split.dial.server import DialServer
from easyedit_split.dial.session import Session


@pytest.fixture(scope="session")
def demo() -> tuple[Any, Any]:
    model, tokenizer = es.load_model("demo")
    return model.requires_grad_(False), tokenizer


@pytest.fixture(scope="session")
def run_folder(demo: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<run>/mood` (a trained vector) and `<run>/FOLDER` (local weight, noise), each strong and with its sweep."""
    run = tmp_path_factory.mktemp("run")
    nasty_run(*demo, run)
    return run


@pytest.fixture(scope="module")
def server(demo: tuple[Any, Any], run_folder: Path) -> Iterator[DialServer]:
    """A dial of that run, open on loopback."""
    with Session(*demo, find_changes([run_folder]), "demo") as session, DialServer(session) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()
