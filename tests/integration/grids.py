"""A small grid: a tiny random model, two methods' files on one data set of two concepts, and its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import tiny_model, tiny_tokenizer

from easyedit_split.reproduce.settings import grid_settings

SPLIT = """alg_name: split
layers: [1]
intervention_method: {form}
intervention_components: mlp_mid
lr: 0.05
n_epochs: 1
batch_size: 4
train_data: {folder}/train.jsonl
test_data: {folder}/test.jsonl
"""
DIFFMEAN = """alg_name: unified_diffmean
layers: [1]
intervention_method: vector
train_data: {folder}/train.jsonl
test_data: {folder}/test.jsonl
"""


def small_grid(folder: Path) -> Path:
    """Model, files and data in `folder`."""
    tiny_model("qwen2", layers=2).save_pretrained(folder / "tiny-qwen2")
    tiny_tokenizer().save_pretrained(folder / "tiny-qwen2")
    for part, n in (("train", 12), ("test", 3)):
        rows = [
            {
                "question": f"{part} {i}",
                "matching": f"yes {i}",
                "not_matching": f"no {i}",
                "concept_id": c,
                "concept": f"c{c}",
            }
            for c in (0, 1)
            for i in range(n)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = folder / "hparams" / "mine" / "pairs"
    files.mkdir(parents=True)
    (files / "split_vector.yaml").write_text(SPLIT.format(folder=folder, form="vector"))
    (files / "diffmean_vector.yaml").write_text(DIFFMEAN.format(folder=folder))
    return folder


def settings(place: Path, **more: Any) -> Any:
    values = {
        "model_name_or_path": str(place / "tiny-qwen2"), "output_dir": str(place / "out"), "seeds": [0, 1],
        "max_new_tokens": 3, "n_held_out": 4, "points": 15, "n_boot": 5, **more,
    }  # fmt: skip
    return grid_settings(str(place / "hparams" / "mine"), values)
