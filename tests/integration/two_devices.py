"""Everything that runs a model, on the processor and on make-believe cards, for test_devices.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from devices import Machine, on_card, over_cards
from everything import results
from laws import TEXT_PAIRS
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.models.sites import Site
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.training.trainer import train


def waits_a_step() -> float:
    """How often a training step has the processor wait for the card."""

    def waits(epochs: int) -> int:
        model = on_card(tiny_model("qwen2"))
        with Machine() as machine:
            config = TrainConfig(n_epochs=epochs, batch_size=2, gradient_accumulation_steps=2, lr=0.01)
            train(model, tiny_tokenizer(), TEXT_PAIRS[:4], site=Site(1), form="vector", config=config)
        return machine.waits.total()

    return (waits(5) - waits(2)) / 3


def main(path: Path, cases: dict[str, tuple[str, str, tuple[int, int] | None]]) -> None:
    answers: dict[str, Any] = {"waits": waits_a_step()}
    for case, (kind, form, spread) in cases.items():
        expected = results(tiny_model(kind, layers=3), form)
        model = tiny_model(kind, layers=3)
        model = over_cards(model, *spread) if spread else on_card(model)
        with Machine():
            found = results(model, form)
        answers[case] = {"expected": expected, "found": found}
    path.write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
