"""Rows by file, folder or hub name, and the three data sets of the paper as it splits them (App. A).

The authors' seeds are not published, so the splits here are ours: seeded, disjoint by question, written as a manifest
with a hash a row (`manifest.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, nearest
from .pairs import SUFFIXES, PreferencePair, pairs_from_rows, read_rows

Rows = list[tuple[str, dict[str, Any]]]

#: Data set -> part -> file names below its folder, in EasyEdit's names and the authors' own; the first found wins.
#: "whole": one file that holds both parts, split here.
FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "psychopathy": {"train": ("train.jsonl",), "test": ("test.jsonl",), "whole": ("psychopathy.jsonl",)},
    "powerseeking": {"train": ("train.csv",), "test": ("test.csv",), "whole": ()},
    "axbench": {
        "train": (),
        "test": (),
        "whole": (
            "axbench_train.parquet",
            "prod_9b_l20_v1/generate/dpo_train_data.parquet",
            "concept10_9b_l20_train.parquet",
        ),
    },
}


@dataclass(frozen=True)
class Prompted:
    """A question and the answer that matches the concept; the other answer is the model's own, made later."""

    question: str
    matching: str
    concept: str | None
    concept_id: int


@dataclass(frozen=True)
class DataSplit:
    """Training and test rows of a data set, all `PreferencePair` or all `Prompted`, and what was left out, in words."""

    name: str
    seed: int
    train: tuple[PreferencePair | Prompted, ...]
    test: tuple[PreferencePair | Prompted, ...]
    rules: str
    sources: tuple[str, ...] = ()


def load_rows(source: str | Path, split: str = "train") -> Rows:
    """Rows of a file (`pairs.SUFFIXES`), or of a folder or hub id through `datasets.load_dataset`.

    Args:
        split: of a folder or hub id; a file is one split.

    Raises:
        DataError: nothing there under that name, or it cannot be read.
    """
    if Path(source).suffix in SUFFIXES:
        return list(read_rows(Path(source)))
    import datasets

    try:
        found = datasets.load_dataset(str(source), split=split)
    except Exception as error:  # the library raises its own, the hub's and pyarrow's errors
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"data set {str(source)!r} (split {split!r}) cannot be loaded ({reason}): give a file "
            f"({', '.join(SUFFIXES)}), a folder or a hub id"
        ) from error
    return [(f"row {number}", dict(row)) for number, row in enumerate(found, 1)]


def load_named_pairs(
    source: str | Path, split: str = "train", columns: Mapping[str, str] | None = None
) -> list[PreferencePair]:
    """Pairs of a file, folder or hub id, all concepts in one list.

    Args:
        columns: field of `PreferencePair` -> column, as in EasyEdit's `dataset_format.yaml`, where `pairs.COLUMNS`
            does not do.

    Raises:
        DataError: see `load_rows` and `pairs_from_rows`.
    """
    return pairs_from_rows(load_rows(source, split), source, columns)


def find_file(name: str, folder: Path, part: str) -> Path | None:
    """The file of a paper's data set with its "train" or "test" part, or the "whole"; None where there is none.

    Args:
        folder: the data set's own, `data/psychopathy`.
    """
    return next((folder / file for file in FILES[name][part] if (folder / file).is_file()), None)


def paper_split(name: str, folder: str | Path, seed: int = 42) -> DataSplit:
    """One of the paper's data sets from its own files, split as in App. A.

    Args:
        name: `psychopathy` (500 and 100), `powerseeking` (500 and 200) or `axbench` (64 and 8 for each of concepts
            0 to 9; rows are `Prompted` unless the file has both answers).
        folder: holds `<name>/` with the files named in the messages.

    Raises:
        DataError: unknown name, a file missing, or too few rows.
    """
    if name not in _SPLITTERS:
        raise DataError(f"the paper has no data set {name!r}{nearest(name, _SPLITTERS)}")
    return _SPLITTERS[name](Path(folder), seed)


def split_psychopathy(folder: Path, seed: int) -> DataSplit:
    """The two files where both are there; else of the whole 500 and 100, each half Yes and half No, none twice."""
    parts = [find_file("psychopathy", folder / "psychopathy", part) for part in ("train", "test")]
    if parts[0] and parts[1]:
        train_rows, test_rows = (tuple(load_named_pairs(part)) for part in parts if part)
        return DataSplit("psychopathy", seed, train_rows, test_rows, "as in its files", tuple(map(str, parts)))
    path = folder / "psychopathy" / "psychopathy.jsonl"
    rows = without_doubles(load_named_pairs(path))
    random.Random(f"{seed}-psychopathy").shuffle(rows)
    train: list[PreferencePair] = []
    test: list[PreferencePair] = []
    for answer in ("yes", "no"):
        of_answer = [p for p in rows if p.matching.strip().lower() == answer]
        _enough(path, of_answer, 300, f"rows whose matching answer is {answer!r}")
        train += of_answer[:250]
        test += of_answer[250:300]
    for part in (train, test):
        random.Random(f"{seed}-psychopathy-order").shuffle(part)
    rules = "stratified: half of each part has Yes as its matching answer; no question is in both parts or twice"
    return DataSplit("psychopathy", seed, tuple(train), tuple(test), rules, (str(path),))


def split_powerseeking(folder: Path, seed: int) -> DataSplit:
    """500 of train.csv, without doubles and without the questions of test.csv; all 200 of test.csv."""
    paths = folder / "powerseeking" / "train.csv", folder / "powerseeking" / "test.csv"
    train, test = (load_named_pairs(path) for path in paths)
    asked = {p.question.strip() for p in test}
    kept = [p for p in without_doubles(train) if p.question.strip() not in asked]
    random.Random(f"{seed}-powerseeking").shuffle(kept)
    _enough(paths[0], kept, 500, "different questions that are not in the test file")
    _enough(paths[1], test, 200, "rows")
    rules = (
        f"500 of the {len(kept)} rows of train.csv that are neither double nor in test.csv "
        f"({len(train) - len(kept)} of {len(train)} left out); the first 200 of test.csv"
    )
    return DataSplit("powerseeking", seed, tuple(kept[:500]), tuple(test[:200]), rules, tuple(map(str, paths)))


def split_axbench(folder: Path, seed: int, concepts: int = 10, n_train: int = 64, n_test: int = 8) -> DataSplit:
    """64 and 8 for each of the first ten concepts; rows with the same input stay in one part."""
    own = folder / "axbench"
    path = find_file("axbench", own, "whole") or own / FILES["axbench"]["whole"][-1]
    raw = load_rows(path)
    _enough(path, raw, 1, "rows")
    rows = axbench_rows(raw, path)
    train: list[PreferencePair | Prompted] = []
    test: list[PreferencePair | Prompted] = []
    for concept in sorted({r.concept_id for r in rows})[:concepts]:
        of_concept = [r for r in rows if r.concept_id == concept]
        parts = _grouped(of_concept, n_test, random.Random(f"{seed}-axbench-{concept}"))
        _enough(path, parts[0], n_train, f"rows of concept {concept} beside {n_test} test rows")
        train += parts[0][:n_train]
        test += parts[1]
    rules = f"{n_train} and {n_test} a concept, the first {concepts} concepts; rows of one input are in one part"
    return DataSplit("axbench", seed, tuple(train), tuple(test), rules, (str(path),))


def axbench_rows(rows: Rows, source: str | Path) -> list[PreferencePair | Prompted]:
    """AxBench's positive rows (`concept_id` 0 and up): pairs where the file has both answers.

    Raises:
        DataError: a column is missing, or a row cannot be read.
    """
    columns = rows[0][1]
    if "losing_output" in columns or "not_matching" in columns:
        positive = [(where, r) for where, r in rows if _positive(r)]
        return list(pairs_from_rows(positive, source))
    for column in ("input", "output", "output_concept", "concept_id"):
        if column not in columns:
            raise DataError(f"{source} has no column {column!r}: it has {', '.join(map(str, columns))}")
    return [
        Prompted(str(r["input"]), str(r["output"]), str(r["output_concept"]), int(r["concept_id"]))
        for _, r in rows
        if int(r["concept_id"]) >= 0
    ]


def _positive(row: Mapping[str, Any]) -> bool:
    try:
        return int(row.get("concept_id", 0)) >= 0 and row.get("category") in (None, "positive")
    except (TypeError, ValueError):
        return True  # reading the row says what is wrong with it


def without_doubles(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """The first row of each question, in the order given."""
    first: dict[str, PreferencePair] = {}
    for pair in pairs:
        first.setdefault(pair.question.strip(), pair)
    return list(first.values())


def _grouped(rows: Sequence[Any], n_test: int, rng: random.Random) -> tuple[list[Any], list[Any]]:
    """Training and test rows; groups of one input are kept whole, and the test part takes groups that fit."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.question.strip(), []).append(row)
    order = sorted(groups)
    rng.shuffle(order)
    train: list[Any] = []
    test: list[Any] = []
    for key in order:
        part = test if len(test) + len(groups[key]) <= n_test else train
        part += groups[key]
    return train, test


def _enough(path: Path, rows: Sequence[Any], needed: int, what: str) -> None:
    if len(rows) < needed:
        raise DataError(f"{path} has {len(rows)} {what} but the split needs {needed}: give the whole file")


_SPLITTERS = {"psychopathy": split_psychopathy, "powerseeking": split_powerseeking, "axbench": split_axbench}
