"""A cell's result file: one JSON object, written whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..storage.files import write_text


def read_result(path: Path) -> dict[str, Any] | None:
    """A result file; None where there is none that can be read (it is then made again)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "inputs" in found else None


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result. A number that is not finite becomes null, which the tables leave out as they leave out NaN."""
    write_text(path, json.dumps(_finite(result), allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
