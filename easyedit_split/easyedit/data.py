"""EasyEdit's data as preference pairs: one concept, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.pairs import PreferencePair
from ..errors import DataError


@dataclass(frozen=True)
class ConceptPairs:
    """The pairs of one concept."""

    concept_id: int
    pairs: list[PreferencePair]


def concept_pairs(
    dataset: Any, name: str | None = None, max_concepts: int | None = None, max_examples: int | None = None
) -> tuple[list[ConceptPairs], bool]:
    """EasyEdit's training data as pairs, and whether it was given as several concepts.

    Args:
        dataset: `[{"question", "matching", "not_matching"}]`, or `[(concept_id, [item, ...])]`.
        name: the data set's name, for messages.
        max_concepts: take the first concepts only.
        max_examples: take the first items of each concept only.

    Raises:
        DataError: another shape, an item without an answer, or a concept without items.
    """
    shown = f"data set {name!r}" if name else "the data set"
    if isinstance(dataset, Mapping):
        dataset = list(dataset.items())
    if not isinstance(dataset, Sequence) or isinstance(dataset, str) or not dataset:
        raise DataError(f"{shown} is {type(dataset).__name__} without items; give a list of items or of concepts")
    several = isinstance(dataset[0], (tuple, list))
    groups = [_group(entry, shown) for entry in dataset] if several else [(0, list(dataset))]
    chosen = groups[: max_concepts or None] if several else groups
    return [_pairs(concept_id, items, shown, several, max_examples) for concept_id, items in chosen], several


def _group(entry: Any, shown: str) -> tuple[int, list[Any]]:
    try:
        concept_id, items = entry
        return int(concept_id), list(items)
    except (TypeError, ValueError):
        raise DataError(f"{shown} mixes items and concepts; give (concept_id, [item, ...]) for each") from None


def _pairs(concept_id: int, items: list[Any], shown: str, several: bool, limit: int | None) -> ConceptPairs:
    where = f"{shown}, concept {concept_id}" if several else shown
    if several:
        items = [item for item in items if item.get("category") in (None, "positive")]
    if not items:
        raise DataError(f"{where}: there is no item to train on; give at least one pair")
    numbered = list(enumerate(items))[: limit or None]
    return ConceptPairs(concept_id, [_pair(item, concept_id, f"{where}, item {i}") for i, item in numbered])


def _pair(item: Any, concept_id: int, where: str) -> PreferencePair:
    for key in ("matching", "not_matching"):
        if not isinstance(item, Mapping) or item.get(key) is None:
            raise DataError(f"{where} has no {key!r}; give both answers of the pair")
    question = item.get("question")
    concept = item.get("concept", item.get("output_concept"))
    try:
        return PreferencePair(
            "" if question is None else question,
            item["matching"],
            item["not_matching"],
            None if concept is None else str(concept),
            concept_id,
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
