"""benchmarks/peers.py: every row's contenders of this environment do the same work, on the shipped model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import peers  # noqa: E402

SMALL = "--model demo --data demo --layer 2 --pairs 8 --test-pairs 8 --epochs 4 --points 5 --prompts 3 --tokens 6"


def _runs(row: str, form: str = "vector") -> dict[str, dict[str, float]]:
    """What came of one round of each contender that needs nothing else installed."""
    task = peers.make_task(peers.make_parser().parse_args(SMALL.split()), form)
    found: dict[str, dict[str, float]] = {}
    for peer in peers.ROWS[row].peers:
        if not peer.environment and not peer.name.startswith("EasyEdit"):
            torch.manual_seed(0)
            contender = peer.contender(task)
            contender.work()
            found[peer.name] = contender.check()
    return found


def _unsteered() -> dict[str, float]:
    import peer_task

    task = peers.make_task(peers.make_parser().parse_args(SMALL.split()), "vector")
    return peer_task.answer_losses(peer_task.plain_forward(peer_task.plain_model(task)[0]), task.test)


@pytest.mark.parametrize("form", peers.ROWS["split"].forms)
def test_training_contenders_end_at_like_losses(form: str) -> None:
    found, before = _runs("split", form), _unsteered()
    assert list(found) == ["ours", "naive loop"]
    gained = [
        (f["not_matching"] - f["matching"]) - (before["not_matching"] - before["matching"]) for f in found.values()
    ]
    assert min(gained) > 0
    assert gained[0] == pytest.approx(gained[1], rel=0.5)  # orders of pairs and strengths are drawn apart


def test_the_hook_loop_finds_the_losses_of_the_sweep() -> None:
    found = _runs("sweep")
    assert found["hook loop with a cache"] == pytest.approx(found["ours"], rel=1e-5)


@pytest.mark.parametrize("row", ["lora", "sft", "reps", "diffmean", "end"])
def test_the_other_rows_give_losses(row: str) -> None:
    (found,) = _runs(row).values()
    assert {"matching", "not_matching"} <= set(found)
    assert all(0 < found[which] < 20 for which in ("matching", "not_matching"))


def test_generation_compares_the_same_texts() -> None:
    (found,) = _runs("generation").values()
    assert found["texts as unsteered"] == 3


def test_both_searches_see_every_layer() -> None:
    layers: list[Any] = [found["layers"] for found in _runs("layers").values()]
    assert layers == [layers[0]] * 2
