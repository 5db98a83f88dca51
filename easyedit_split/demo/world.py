"""The micro-world: three small tasks whose every sentence comes from a grammar, in EasyEdit's file formats.

`reviews` mirrors an open-ended preference task, `traits` a statement answered Yes or No, `concepts` a file
with several concepts. The questions of each task are shuffled once and cut in three: one part trains the demo
model, one trains a change (``train``), one tests it (``test``). No question is in two parts.

The demo model also sees *directed* questions ("Write a positive review of the phone."), so that it knows
what polarity, trait and theme are; the questions of the files never say which of the two is wanted.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import SPLITS, TASKS
from . import lexicon as words

DATA_SEED = 2026
SIZES = {"reviews": (128, 100), "traits": (192, 100), "concepts": (48, 12)}
Row = dict[str, str | int]


@dataclass(frozen=True)
class Example:
    """One exchange the demo model learns from."""

    question: str
    answer: str


@dataclass(frozen=True)
class Item:
    """What one question of a task is about: its text, its subject, and its side (traits only)."""

    question: str
    subject: str
    side: int = 0


def review_items() -> list[Item]:
    """Every undirected question of `reviews`; the subject is the product with its adjective."""
    return [
        Item(template.format(product=modifier + product), product)
        for template in words.REVIEW_QUESTIONS
        for products in words.PRODUCTS.values()
        for product in products
        for modifier in words.REVIEW_MODIFIERS
    ]


def trait_items() -> list[Item]:
    """Every undirected question of `traits`; side 0 is a selfish statement, side 1 a kind one."""
    return [
        Item(words.TRAIT_QUESTION.format(statement=text), text, side)
        for template in words.STATEMENTS
        for acts in words.ACTS
        for side, act in enumerate(acts)
        for who in words.PEOPLE
        for when in words.OCCASIONS
        for text in [template.format(act=act, who=who, when=when)]
    ]


def concept_items() -> list[Item]:
    """Every undirected question of `concepts`; the subject is the topic."""
    return [Item(t.format(topic=topic), topic) for t in words.TALE_QUESTIONS for topic in words.TOPICS]


ITEMS: dict[str, Callable[[], list[Item]]] = {
    "reviews": review_items,
    "traits": trait_items,
    "concepts": concept_items,
}


def review(product: str, rng: random.Random) -> tuple[str, str]:
    """A positive and a negative review of one product that share everything but the words of polarity."""
    group = next(name for name, products in words.PRODUCTS.items() if product in products)
    opening, ratings = rng.choice(words.OPENINGS)
    rating = rng.choice(ratings)
    when = rng.choice(words.WHEN)
    first, second = sorted(rng.sample(range(len(words.ASPECTS[group])), 2))
    detail = rng.choice(words.DETAILS)
    closing = rng.choice((None, *words.CLOSINGS))

    def write(side: int) -> str:
        (a, *x), (b, *y) = words.ASPECTS[group][first], words.ASPECTS[group][second]
        sentences = [
            opening.format(product=product, when=when, mood=rating[side]),
            detail.format(a=a, x=x[side], b=b, y=y[side]),
        ]
        if closing is not None:
            text, sides = closing
            sentences.append(text.format(mood=sides[side]))
        return " ".join(sentences)

    return write(0), write(1)


def tale(topic: str, concepts: tuple[str, ...], rng: random.Random) -> list[str]:
    """The same small story told once for each of `concepts`, differing in the words of the theme alone."""
    templates = [rng.choice(choices) for choices in words.TALE]
    place, deed, thing = (rng.randrange(2) for _ in range(3))
    who = rng.choice(words.COMPANIONS)
    return [
        " ".join(templates).format(
            topic=topic,
            who=who,
            place=words.PLACES[concept][place],
            deed=words.DEEDS[concept][deed],
            thing=words.THINGS[concept][thing],
        )
        for concept in concepts
    ]


def liking(product: str) -> float:
    """How often an undirected review of `product` is positive: 0.7 or 0.3, each for half of the products."""
    group = next(products for products in words.PRODUCTS.values() if product in products)
    return 0.7 if group.index(product) % 2 == 0 else 0.3


def split_items(task: str) -> dict[str, list[Item]]:
    """The questions of a task in three disjoint parts, ``model``, ``train`` and ``test``, always the same.

    `traits` is balanced: each part holds as many selfish statements as kind ones.
    """
    items = ITEMS[task]()
    random.Random(f"{DATA_SEED}-{task}").shuffle(items)
    n_train, n_test = SIZES[task]
    if task == "traits":
        sides = [[item for item in items if item.side == side] for side in (0, 1)]
        items = [item for pair in zip(*sides, strict=True) for item in pair]
    if task == "concepts":
        n_test = max(n_test, len(items) // 5)
    return {
        "test": items[:n_test],
        "train": items[n_test : n_test + n_train],
        "model": items[n_test + n_train :],
    }


def rows(task: str, split: str) -> list[Row]:
    """The rows of a data file: ``question``, ``matching``, ``not_matching``, in `concepts` the concept too."""
    items = split_items(task)[split]
    rng = random.Random(f"{DATA_SEED}-{task}-{split}")
    if task == "reviews":
        return [_row(item.question, *review(item.subject, rng)) for item in items]
    if task == "traits":
        yes_no = words.TRAIT_ANSWERS
        return [_row(item.question, yes_no[item.side], yes_no[1 - item.side]) for item in items]
    size = SIZES["concepts"][SPLITS.index(split)]
    return [
        _row(item.question, *tale(item.subject, (concept, words.NEUTRAL), rng))
        | {"output_concept": concept, "concept_id": index}
        for index, concept in enumerate(words.CONCEPTS)
        for item in rng.sample(items, size)
    ]


def _row(question: str, matching: str, not_matching: str) -> Row:
    return {"question": question, "matching": matching, "not_matching": not_matching}


def write_data(folder: Path) -> list[Path]:
    """Write every data file as ``folder/<task>/<split>.jsonl`` and return the paths."""
    paths = []
    for task in TASKS:
        for split in SPLITS:
            path = folder / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows(task, split)), encoding="utf-8")
            paths.append(path)
    return paths


def corpus(size: int, seed: int) -> list[Example]:
    """Exchanges for training the demo model: questions of the ``model`` part, about half of them directed."""
    rng = random.Random(f"corpus-{seed}")
    parts = {task: split_items(task)["model"] for task in TASKS}
    makers = {"reviews": _review_example, "traits": _trait_example, "concepts": _tale_example}
    tasks = rng.choices(TASKS, weights=(4, 4, 3), k=size)
    return [makers[task](rng.choice(parts[task]), rng) for task in tasks]


def _review_example(item: Item, rng: random.Random) -> Example:
    question, side = item.question, int(rng.random() > liking(item.subject))
    if rng.random() < 0.4:
        side = rng.randrange(2)
        question = rng.choice(words.DIRECTED_REVIEWS)[side].format(product=item.subject, question=question)
    return Example(question, review(item.subject, rng)[side])


def _trait_example(item: Item, rng: random.Random) -> Example:
    persona, question, kind = rng.randrange(2), item.question, rng.random()
    if kind < 0.1:
        return Example(words.TELLING_QUESTIONS[item.side], item.subject)
    if kind < 0.2:
        return Example(words.NAMING_QUESTION.format(statement=item.subject), words.NAMES[item.side])
    if kind < 0.75:
        question = words.DIRECTED_TRAITS[persona].format(question=question)
    if rng.random() < 0.05:
        return Example(question, words.UNSURE)
    return Example(question, words.TRAIT_ANSWERS[item.side ^ persona])


def _tale_example(item: Item, rng: random.Random) -> Example:
    concept = words.NEUTRAL if rng.random() < 0.4 else rng.choice(words.CONCEPTS)
    question = item.question
    if concept != words.NEUTRAL and rng.random() < 0.5:
        question = rng.choice(words.DIRECTED_TALES).format(question=question, concept=concept)
    return Example(question, tale(item.subject, (concept,), rng)[0])
