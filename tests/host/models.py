"""Model folders and data files for the host tests, made on the spot.

EasyEdit finds a model's family in its folder's name, and takes data from paths relative to the current folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import tiny_model, tiny_tokenizer

SHAPES = {"tiny-qwen2": "qwen2", "tiny-gemma2": "gemma2", "tiny-llama": "llama"}
PAIRS = [
    ("Is it wet?", " Yes, quite.", " No."),
    ("Do you like people?", " Yes", " No, never"),
    ("Say hello", "Hello there", "Go away!"),
    ("What is two and two?", "Four", "Five or six"),
    ("Name a colour", "Blue", "Nothing"),
]


def make_models(root: Path) -> dict[str, Path]:
    """One folder a shape, with a byte-level tokenizer."""
    folders = {}
    for name, kind in SHAPES.items():
        tiny_model(kind).save_pretrained(root / name)
        tiny_tokenizer().save_pretrained(root / name)
        folders[name] = root / name
    return folders


def items(count: int = len(PAIRS)) -> list[dict[str, Any]]:
    """EasyEdit's items of one concept."""
    return [{"question": q, "matching": a, "not_matching": b} for q, a, b in PAIRS[:count]]


def make_workplace(root: Path, checkout: Path) -> Path:
    """A folder to run EasyEdit's scripts in: its hparams folder, and data where its dataset_format.yaml looks."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "hparams").symlink_to(checkout / "hparams")
    data = root / "data" / "psychopathy"
    data.mkdir(parents=True)
    names = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
    rows = [json.dumps(dict(zip(names, pair, strict=True))) for pair in PAIRS]
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root
