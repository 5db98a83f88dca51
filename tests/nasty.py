"""Texts that break a page which does not escape them: whoever runs them leaves `window.broken`; and a run of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from laws import noisy

import easyedit_split as es
from easyedit_split.demo import data_path

NASTY = "<script>window.broken = 1</script>"
CONCEPT = "<img src=x onerror='window.broken = 2'>\"&amp;"
FOLDER = "<img src=x onerror='window.broken = 3'>&amp;"
FACTORS = np.linspace(-3, 3, 25)


def nasty_pairs() -> list[es.PreferencePair]:
    """Every field is HTML and script."""
    plain = es.flat_pairs(es.load_pairs(data_path("reviews", "train")))[:24]
    return [
        es.PreferencePair(f"{p.question} {NASTY}", f"{p.matching} {NASTY}", f"{p.not_matching} {NASTY}", CONCEPT)
        for p in plain
    ]


def nasty_run(model: Any, tokenizer: Any, run: Path, shown: int = 6) -> dict[str, tuple[Any, es.SweepTable]]:
    """`<run>/mood` (a trained vector) and `<run>/FOLDER` (local weight, noise), each strong and with its sweep of so
    many pairs; method -> change and sweep."""
    pairs = nasty_pairs()
    config = es.TrainConfig(n_epochs=8, lr=0.05)
    vector = es.train(model, tokenizer, pairs, site=es.Site(3, "mlp.down_proj"), form="vector", config=config).scaled(4)
    weight = noisy(model, "local_weight", layer=3, scale=0.8)
    made = {}
    for name, artifact in (("mood", vector), (FOLDER, weight)):
        artifact = replace(artifact, origin={**artifact.origin, "concept": CONCEPT})
        artifact.save(run / name)
        table = es.sweep(model, tokenizer, pairs[:shown], artifact, FACTORS, "sum")
        table.save(run / name / "sweep.parquet")
        made[name] = artifact, table
    return made
