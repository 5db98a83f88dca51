"""Preference pairs and the files they come from.

A pair is one question with two answers: one that matches the concept, one that does not. Files: JSON Lines, JSON,
CSV, Parquet, in EasyEdit's column names or those of the three data sets of the paper.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

# field -> column names, first found wins (EasyEdit's dataset_format.yaml, and the data sets' own files)
COLUMNS: dict[str, tuple[str, ...]] = {
    "question": ("question", "input", "prompt"),
    "matching": ("matching", "answer_matching_behavior", "winning_output", "chosen"),
    "not_matching": ("not_matching", "answer_not_matching_behavior", "losing_output", "rejected"),
    "concept": ("concept", "output_concept"),
    "concept_id": ("concept_id",),
}
_SURROGATE = re.compile("[\ud800-\udfff]")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class PreferencePair:
    """One question, the answer that matches the concept and the one that does not.

    Raises:
        DataError: an answer is empty, or the two are equal.
    """

    question: str
    matching: str
    not_matching: str
    concept: str | None = None
    concept_id: int = 0

    def __post_init__(self) -> None:
        for name in ("question", "matching", "not_matching"):
            if not isinstance(getattr(self, name), str):
                raise DataError(f"{name} is {getattr(self, name)!r}: it must be text")
            if _SURROGATE.search(getattr(self, name)):
                raise DataError(f"{name} holds half a character (a lone surrogate): repair the text, or drop the row")
        if self.concept is not None and not isinstance(self.concept, str):
            raise DataError(f"concept is {self.concept!r}: it must be text, or left out")
        for name in ("matching", "not_matching"):
            if not getattr(self, name).strip():
                raise DataError(f"the {name} answer is empty: give both answers some text, or drop the row")
        if self.matching.strip() == self.not_matching.strip():
            raise DataError(f"both answers are {self.matching.strip()[:60]!r}: a pair needs two different answers")

    def swapped(self) -> PreferencePair:
        """The pair with its two answers' roles exchanged."""
        return PreferencePair(self.question, self.not_matching, self.matching, self.concept, self.concept_id)


def load_pairs(
    path: str | Path, columns: Mapping[str, str] | None = None
) -> list[PreferencePair] | dict[int, list[PreferencePair]]:
    """Read a file of pairs.

    Args:
        path: `.jsonl`, `.json`, `.csv` or `.parquet`.
        columns: field of `PreferencePair` -> column of the file, where the names of `COLUMNS` do not do.

    Returns:
        A list; or, where the file holds several concepts, a list for each `concept_id`.

    Raises:
        DataError: file missing or of another kind, a column missing, a row that cannot be read (its number is named).
    """
    return by_concept(pairs_from_rows(list(read_rows(Path(path))), path, columns))


def by_concept(pairs: list[PreferencePair]) -> list[PreferencePair] | dict[int, list[PreferencePair]]:
    """The list itself; or, where it holds several concepts, a list for each `concept_id`."""
    ids = sorted({p.concept_id for p in pairs})
    if len(ids) == 1:
        return pairs
    return {i: [p for p in pairs if p.concept_id == i] for i in ids}


def pairs_from_rows(
    rows: Sequence[tuple[str, Mapping[str, Any]]], source: str | Path, columns: Mapping[str, str] | None = None
) -> list[PreferencePair]:
    """Pairs of rows, each given with its place in `source` for messages; see `load_pairs`.

    Raises:
        DataError: no rows, a column missing, a row that cannot be read.
    """
    if not rows:
        raise DataError(f"{source} holds no rows: give a file with at least one pair")
    names = _columns(dict(rows[0][1]), source, dict(columns or {}))
    return [_pair(dict(row), names, f"{source}, {where}") for where, row in rows]


def flat_pairs(
    pairs: list[PreferencePair] | dict[int, list[PreferencePair]], concept_id: int | None = None
) -> list[PreferencePair]:
    """One list: the concept asked for, or the only one there is.

    Raises:
        DataError: several concepts and none chosen, or no such concept.
    """
    if isinstance(pairs, list):
        known = {p.concept_id for p in pairs}
        if concept_id is not None and concept_id not in known:
            raise DataError(f"concept_id {concept_id} is not in the data: it holds {_ids(known)}")
        return pairs
    if concept_id is None:
        raise DataError(f"the data holds several concepts ({_ids(pairs)}): choose one with concept_id")
    if concept_id not in pairs:
        raise DataError(f"concept_id {concept_id} is not in the data: it holds {_ids(pairs)}")
    return pairs[concept_id]


def pairs_hash(pairs: Iterable[PreferencePair]) -> str:
    """SHA-256 of the pairs' text, in their order."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps([pair.question, pair.matching, pair.not_matching]).encode())
    return digest.hexdigest()


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file as dictionaries, each with its place ("line 3", "row 3") for messages."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is not a data file this package reads: use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist: check the path")
    try:
        yield from _READERS[path.suffix](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _object(line, f"{path}, line {number}")


def _read_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    data = _parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(data, list):
        raise DataError(f"{path} holds a {type(data).__name__} where a list of rows is needed")
    number = 0
    for item in data:
        for row in _rows_of_item(item, path):
            number += 1
            yield f"row {number}", row


def _rows_of_item(item: Any, path: Path) -> Iterable[dict[str, Any]]:
    """A row, or EasyEdit's `[concept_id, [row, …]]`."""
    if isinstance(item, list) and len(item) == 2 and isinstance(item[1], list):
        rows = [{"concept_id": item[0], **row} if isinstance(row, dict) else row for row in item[1]]
    else:
        rows = [item]
    for row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path} holds a {type(row).__name__} where a row (an object) is needed")
    return rows


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        number = 0
        try:
            for number, row in enumerate(csv.DictReader(file), 1):
                yield f"row {number}", row
        except csv.Error as error:
            raise DataError(f"{path}, row {number + 1} is not CSV ({error}): fix or remove it") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


_READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error.msg} at column {error.colno}): fix or remove it") from None
    except ValueError as error:
        raise DataError(f"{where} cannot be read ({error}): fix or remove it") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply to be read: give plain rows") from None


def _object(line: str, where: str) -> dict[str, Any]:
    row = _parse(line, where)
    if not isinstance(row, dict):
        raise DataError(f"{where} is a {type(row).__name__} where an object with named fields is needed")
    return row


def _columns(row: dict[str, Any], path: str | Path, chosen: dict[str, str]) -> dict[str, str]:
    names = {field: next((c for c in known if c in row), "") for field, known in COLUMNS.items()}
    for field, column in chosen.items():
        if field not in COLUMNS or column not in row:
            raise DataError(f"{path} has no column {column!r} for {field}: it has {', '.join(map(str, row))}")
        names[field] = column
    for field in ("matching", "not_matching"):
        if not names[field]:
            raise DataError(
                f"{path} has no column for the {field} answer (looked for {', '.join(COLUMNS[field])}): "
                f"it has {', '.join(map(str, row))}"
            )
    return {field: column for field, column in names.items() if column}


def _pair(row: dict[str, Any], names: dict[str, str], where: str) -> PreferencePair:
    values: dict[str, Any] = {field: row.get(column) for field, column in names.items()}
    values.setdefault("question", "")
    if values["question"] is None:
        values["question"] = ""
    if "concept_id" in values:
        try:
            values["concept_id"] = int(values["concept_id"])
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{where}: concept_id is {values['concept_id']!r}: it must be a whole number") from None
    try:
        return PreferencePair(**values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _ids(ids: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ids)))
