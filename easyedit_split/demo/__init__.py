"""What ships to try things on: the micro-world (three small data sets and a small trained model), and pairs in English.

This module gives the paths alone and imports neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError, nearest

TASKS = ("reviews", "traits", "concepts")  # of the micro-world, in its own small language
ENGLISH = ("warmth",)  # for real models: encouraging answers against matter-of-fact ones
SPLITS = ("train", "test")
FOLDER = Path(__file__).resolve().parent

__all__ = ["ENGLISH", "SPLITS", "TASKS", "data_path", "model_path"]


def model_path() -> Path:
    """The folder of the shipped demo model, readable by ``from_pretrained``."""
    return FOLDER / "qwen2-micro"


def data_path(task: str, split: str = "train") -> Path:
    """The jsonl file of one task (``reviews``, ``traits``, ``concepts``, ``warmth``) and split (``train``, ``test``).

    Raises:
        DataError: The task or the split does not exist.
    """
    if task not in (*TASKS, *ENGLISH):
        raise DataError(f"the demo has no task {task!r}{nearest(task, (*TASKS, *ENGLISH))}.")
    if split not in SPLITS:
        raise DataError(f"the demo task {task!r} has no split {split!r}{nearest(split, SPLITS)}.")
    return FOLDER / "data" / task / f"{split}.jsonl"
