"""A run with two changes of the demo model, made of data whose every field is HTML and script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laws import noisy
from nasty import CONCEPT, FOLDER, NASTY

import easyedit_split as es
from easyedit_split.demo import data_path
from easyedit_split.dial.change import find_changes
from easyedit_split.dial.server import DialServer
from easyedit_split.dial.session import Session

FACTORS = np.linspace(-3, 3, 25)


@pytest.fixture(scope="session")
def demo() -> tuple[Any, Any]:
    model, tokenizer = es.load_model("demo")
    return model.requires_grad_(False), tokenizer


@pytest.fixture(scope="session")
def run_folder(demo: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<run>/mood` (a trained vector) and `<run>/FOLDER` (local weight, noise), each strong and with its sweep."""
    model, tokenizer = demo
    pairs = [
        es.PreferencePair(f"{p.question} {NASTY}", f"{p.matching} {NASTY}", f"{p.not_matching} {NASTY}", CONCEPT)
        for p in es.flat_pairs(es.load_pairs(data_path("reviews", "train")))[:24]
    ]
    run = tmp_path_factory.mktemp("run")
    config = es.TrainConfig(n_epochs=8, lr=0.05)
    vector = es.train(model, tokenizer, pairs, site=es.Site(3, "mlp.down_proj"), form="vector", config=config).scaled(4)
    weight = noisy(model, "local_weight", layer=3, scale=0.8)
    for name, artifact in (("mood", vector), (FOLDER, weight)):
        artifact = replace(artifact, origin={**artifact.origin, "concept": CONCEPT})
        artifact.save(run / name)
        es.sweep(model, tokenizer, pairs[:6], artifact, FACTORS, "sum").save(run / name / "sweep.parquet")
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
