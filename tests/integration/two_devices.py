"""Everything that runs a model, on the processor and on make-believe cards, for test_devices.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from devices import Machine, held, on_card, over_cards
from laws import TEXT_PAIRS
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.activations import collect_activations
from easyedit_split.combine import promoted_tokens
from easyedit_split.config import TrainConfig
from easyedit_split.estimators import diff_mean
from easyedit_split.evaluation.perplexity import perplexity
from easyedit_split.generation import generate
from easyedit_split.objectives import RepsObjective, SftObjective, SplitObjective
from easyedit_split.sites import Site
from easyedit_split.sweeps import sweep
from easyedit_split.trainer import train

QUESTIONS = [pair.question for pair in TEXT_PAIRS]
RUNS: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "split": (SplitObjective(), ("add", "sub"), "all"),
    "reps": (RepsObjective(), ("add", "sub"), "answer"),
    "sft": (SftObjective(), ("add",), "after_prefix"),
}


def results(model: Any, form: str) -> dict[str, Any]:
    """Numbers as lists, texts as they are."""
    tokenizer = tiny_tokenizer()
    found: dict[str, Any] = {"diff_mean": diff_mean(model, tokenizer, TEXT_PAIRS, layer=1).delta.tensors()["db"]}
    for name, (objective, directions, positions) in RUNS.items():
        config = TrainConfig(n_epochs=1, batch_size=2, lr=0.01, rank=2, directions=directions, positions=positions)
        artifact = train(
            model, tokenizer, TEXT_PAIRS, site=Site(1), form=form, objective=objective, config=config,
        )  # fmt: skip
        found.update({f"{name} {key}": value for key, value in artifact.delta.tensors().items()})
        found[f"{name} sweep"] = sweep(model, tokenizer, TEXT_PAIRS, artifact, [-2.0, 0.0, 3.0], "sum").loss_pos
        with artifact.attach(model, 3.0):
            found[f"{name} texts"] = generate(model, tokenizer, QUESTIONS, max_new_tokens=3)
    found["perplexity"] = [perplexity(model, tokenizer, QUESTIONS, ["so", "it", "is", "not", "here"])]
    found["activations"] = np.concatenate(collect_activations(model, tokenizer, TEXT_PAIRS, artifact, [0.0, 2.0]))
    if form != "lora":
        found["promoted"] = [token.token_id for token in promoted_tokens(model, tokenizer, artifact, 3)]
    if form == "vector":
        config = TrainConfig(n_epochs=1, batch_size=2, lr=0.01)
        merged = train(model, tokenizer, TEXT_PAIRS, site=Site(1), form=form, config=config).merge(model, 2.0)
        found["texts, merged"] = generate(model, tokenizer, QUESTIONS, max_new_tokens=3)
        merged.undo()
    return {key: np.asarray(held(value)).tolist() for key, value in found.items()}


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
