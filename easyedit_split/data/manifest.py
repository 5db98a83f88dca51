"""A data split as a file that can be checked: where its rows came from, and a hash a row."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, DataError
from ..storage.files import write_text
from .paper_sets import DataSplit


def row_hash(row: Any) -> str:
    """SHA-256 of a row's fields as JSON."""
    return hashlib.sha256(json.dumps(astuple(row), ensure_ascii=False).encode()).hexdigest()


def manifest(split: DataSplit) -> dict[str, Any]:
    """Name, seed, rules, the source files with their hashes, and the hash of every row in order."""
    return {
        "name": split.name,
        "seed": split.seed,
        "rules": split.rules,
        "sources": {Path(s).name: _file_hash(Path(s)) for s in split.sources},
        "train": [row_hash(row) for row in split.train],
        "test": [row_hash(row) for row in split.test],
    }


def write_manifest(split: DataSplit, path: str | Path) -> Path:
    """Write the manifest, atomically."""
    return write_text(path, json.dumps(manifest(split), indent=1) + "\n")


def check_manifest(split: DataSplit, path: str | Path) -> None:
    """Check that `split` is the one the manifest was written for.

    Raises:
        ArtifactError: the file is missing or is no manifest.
        DataError: a part has another number of rows, or a row differs; the first one is named.
    """
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        parts = {part: list(kept[part]) for part in ("train", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a manifest that can be read ({error}): write it again") from None
    for part, hashes in parts.items():
        rows = getattr(split, part)
        if len(rows) != len(hashes):
            raise DataError(f"{path}: the {part} part has {len(hashes)} rows but {len(rows)} are here: use its seed")
        for number, (row, kept_hash) in enumerate(zip(rows, hashes, strict=True)):
            if row_hash(row) != kept_hash:
                raise DataError(
                    f"{path}: {part} row {number} is another one here: use the manifest's files and its seed"
                )


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
