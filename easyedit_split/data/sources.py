"""Where pairs come from, by name: one rule for every command and example.

| name | what is read |
| --- | --- |
| `demo:reviews` | the micro-world's part of that data set |
| a file | all of it |
| `psychopathy`, `powerseeking`, `axbench` | that folder below `data/`, in EasyEdit's file names or the authors' own |
| a folder | its `train.*` or `test.*`; or, of one of those names, the files that `paper_sets.FILES` lists |
| anything else | `datasets.load_dataset` |
"""

from __future__ import annotations

from pathlib import Path

from ..demo import data_path
from ..errors import DataError
from .pairs import SUFFIXES, PreferencePair, pairs_from_rows, read_rows
from .paper_sets import FILES, find_file, load_named_pairs, paper_split

DATA = Path("data")


def load_part(source: str | Path, part: str, base: Path = DATA) -> list[PreferencePair]:
    """Pairs of the "train" or the "test" part of a source, all concepts in one list.

    Args:
        source: a name of the table above.
        base: the folder in which a data set's name is looked for.

    Raises:
        DataError: nothing there, a row that cannot be read, or answers missing.
    """
    name = str(source)
    if name.startswith("demo:"):
        return load_named_pairs(data_path(name.removeprefix("demo:"), part))
    path = base / name if name in FILES else Path(name)
    if path.is_file() or path.suffix in SUFFIXES:
        return pairs_from_rows(list(read_rows(path)), path)
    if not path.is_dir():
        if name in FILES:
            raise DataError(f"the data set {name!r} is not in {base}: put it into {path}, or name a file")
        return load_named_pairs(name, part)
    found = _plain_file(path, part)
    if found is not None:
        return load_named_pairs(found)
    if path.name in FILES:
        return _of_the_paper(path, part)
    return load_named_pairs(path, part)


def _plain_file(folder: Path, part: str) -> Path | None:
    return next((folder / f"{part}{s}" for s in SUFFIXES if (folder / f"{part}{s}").is_file()), None)


def _of_the_paper(folder: Path, part: str) -> list[PreferencePair]:
    whole = find_file(folder.name, folder, "whole")
    if whole is None:
        listed = ", ".join(name for names in FILES[folder.name].values() for name in names)
        raise DataError(f"{folder} has no {part} file of {folder.name}: put one of these there: {listed}")
    rows = getattr(paper_split(folder.name, folder.parent), part)
    pairs = [row for row in rows if isinstance(row, PreferencePair)]
    if len(pairs) < len(rows):
        raise DataError(
            f"{whole} has no answers that do not match the concept: 'reproduce' has the model write them, "
            "or give a file with winning_output and losing_output"
        )
    return pairs
