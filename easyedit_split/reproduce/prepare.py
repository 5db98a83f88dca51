"""The data of a grid, read, split and written once before the cells start."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..data.manifest import manifest
from ..data.pairs import PreferencePair
from ..data.paper_sets import FILES, DataSplit, Prompted, paper_split
from ..data.sources import load_part
from ..demo import ENGLISH, TASKS, data_path
from ..errors import DataError
from ..settings.files import load_hparams
from ..storage.files import write_text
from .settings import GridSettings

MIN_PAIRS = 4
OPEN = "(what the model answers)"
Loader = Callable[[], tuple[Any, Any]]


@dataclass(frozen=True)
class Prepared:
    """Pairs of one concept of a data set: trained on, held out of training to choose the strength, tested on."""

    train: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]
    test: tuple[PreferencePair, ...]


def prepare(
    settings: GridSettings, dataset: str, files: Sequence[Path], loader: Loader, dry: bool = False, known: bool = True
) -> dict[int | None, Prepared]:
    """Read a data set and split it, concept by concept (key None: a data set of one concept).

    The manifest and the pairs are written under `<output>/data/<dataset>/`.

    Args:
        loader: gives model and tokenizer; called only where the model has to answer questions itself.
        dry: write nothing; what the model would answer is left open, unless it is `known` from an earlier run.

    Raises:
        DataError: the data set is nowhere, or has too few pairs.
    """
    split = read_split(settings, dataset, files)
    if any(isinstance(row, Prompted) for row in (*split.train, *split.test)):
        split = _unanswered(split) if dry and not known else _answered(settings, split, loader, dry)
    if not dry:
        _write(settings.output / "data" / dataset, split)
    train, test = cast("tuple[PreferencePair, ...]", split.train), cast("tuple[PreferencePair, ...]", split.test)
    ids = sorted({p.concept_id for p in train})[: settings.concepts]
    if len(ids) == 1:
        return {None: _prepared(settings, dataset, train, test)}
    return {
        i: _prepared(settings, dataset, [p for p in train if p.concept_id == i], [p for p in test if p.concept_id == i])
        for i in ids
    }


def read_split(settings: GridSettings, dataset: str, files: Sequence[Path]) -> DataSplit:
    """Rows of a data set: of the files its hparams name, of the micro-world, or of the paper's files in `data_dir`.

    Raises:
        DataError: none of these.
    """
    named = {(hp.train_data, hp.test_data) for hp in map(load_hparams, files)}
    if named - {("", "")}:
        if len(named) > 1 or not all(next(iter(named))):
            raise DataError(f"the files of {dataset} name different data: give one train_data and one test_data in all")
        sources = next(iter(named))
    elif dataset in (*TASKS, *ENGLISH):
        sources = str(data_path(dataset, "train")), str(data_path(dataset, "test"))
    elif dataset in FILES and settings.data_dir:
        return paper_split(dataset, settings.data_dir, settings.split_seed)
    else:
        where = "set data_dir=FOLDER" if dataset in FILES else "name train_data and test_data in its files"
        raise DataError(f"the data of {dataset!r} is nowhere: {where}")
    train, test = load_part(sources[0], "train"), load_part(sources[1], "test")
    return DataSplit(dataset, settings.split_seed, tuple(train), tuple(test), "as in its files", sources)


def _write(folder: Path, split: DataSplit) -> None:
    write_text(folder / "manifest.json", json.dumps(manifest(split), indent=1) + "\n")
    for part in ("train", "test"):
        lines = [json.dumps(asdict(row), ensure_ascii=False) for row in getattr(split, part)]
        write_text(folder / f"{part}.jsonl", "\n".join(lines) + "\n")


def _unanswered(split: DataSplit) -> DataSplit:
    """The rows with a stand-in for the model's own answers: enough to count cells."""
    parts = [
        tuple(PreferencePair(r.question, r.matching, OPEN, r.concept, r.concept_id) for r in rows)
        for rows in (split.train, split.test)
    ]
    return replace(split, train=parts[0], test=parts[1])


def _answered(settings: GridSettings, split: DataSplit, loader: Loader, dry: bool) -> DataSplit:
    """AxBench's rows with the model's own answers as `not_matching`; only as many concepts as the grid uses."""
    from .own_answers import model_answers, with_model_answers

    model, tokenizer = loader()
    used = sorted({row.concept_id for row in split.train})[: settings.concepts]
    cache = settings.output / "data" / split.name / f"answers-{settings.model_label}.jsonl"
    parts: dict[str, tuple[PreferencePair, ...]] = {}
    for part in ("train", "test"):
        rows = [row for row in getattr(split, part) if row.concept_id in used]
        questions = [row.question for row in rows]
        answers = model_answers(
            model, tokenizer, questions, cache, max_new_tokens=settings.max_new_tokens, progress=True,
            otherwise=OPEN if dry else None,
        )  # fmt: skip
        parts[part] = tuple(with_model_answers(rows, answers))
    rules = f"{split.rules}; not_matching is the model's own greedy answer"
    return replace(split, rules=rules, train=parts["train"], test=parts["test"])


def _prepared(
    settings: GridSettings, dataset: str, train: Sequence[PreferencePair], test: Sequence[PreferencePair]
) -> Prepared:
    """The held-out pairs are at most a fifth of the training pairs, the same for every method and seed."""
    order = list(train)
    random.Random(f"{settings.split_seed}-held-out").shuffle(order)
    n_held = max(MIN_PAIRS, min(settings.n_held_out, len(order) // 5))
    held, rest = order[:n_held], order[n_held:][: settings.n_train]
    tested = list(test)[: settings.n_test]
    if len(rest) < MIN_PAIRS or not tested:
        raise DataError(
            f"{dataset} has {len(train)} training and {len(tested)} test pairs for a concept: "
            f"give at least {2 * MIN_PAIRS} and 1"
        )
    return Prepared(tuple(rest), tuple(held), tuple(tested))
