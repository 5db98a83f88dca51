"""Trainings and a sweep, for test_distributed.py: in its own process, and in two that a launcher started."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from laws import TEXT_PAIRS, noisy
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.distributed import processes, rank
from easyedit_split.errors import TrainingError
from easyedit_split.models.sites import Site
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.sweeps.run import sweep
from easyedit_split.training.objectives import RepsObjective, SplitObjective
from easyedit_split.training.trainer import train

# batches of 3 and 2 pairs are shared unevenly; in one of 1 pair the second process has nothing to do
RUNS = {
    "split": ("local_weight", SplitObjective(), {"batch_size": 3, "gradient_accumulation_steps": 2}),
    "reps": ("vector", RepsObjective(), {"batch_size": 2, "directions": ("add", "sub")}),
    "single": ("lora", SplitObjective(), {"batch_size": 1, "n_epochs": 1}),
}


def run(folder: Path) -> None:
    """Write the artifacts of `RUNS`, a sweep, and what a run that diverges says."""
    model, tokenizer = tiny_model("qwen2"), tiny_tokenizer()
    for name, (form, objective, changes) in RUNS.items():
        config = TrainConfig(**{"n_epochs": 2, "lr": 0.05, "rank": 2, **changes})
        artifact = train(
            model, tokenizer, TEXT_PAIRS, site=Site(1), form=form, objective=objective, config=config,
            checkpoint=folder / f"{name}.checkpoint",
        )  # fmt: skip
        if rank() == 0:
            artifact.save(folder / name)
    table = sweep(model, tokenizer, TEXT_PAIRS, noisy(model), torch.linspace(-2, 2, 41).numpy(), "sum")
    if rank() == 0:
        table.save(folder / "sweep.parquet")
    try:
        bad = TrainConfig(n_epochs=1, batch_size=2, steering_factors=(1e38,), rank=2)
        train(model, tokenizer, TEXT_PAIRS, site=Site(1), form="vector", config=bad)
    except TrainingError as error:
        (folder / f"error.{rank()}").write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    with processes(nullcontext()):
        run(Path(sys.argv[1]))
        print("printed once")
