"""Laws of the micro-world's data: disjoint splits, pairs that differ in polarity alone."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest

from easyedit_split.demo import SPLITS, TASKS, data_path, model_path, world
from easyedit_split.demo import lexicon as words
from easyedit_split.errors import DataError


@pytest.mark.parametrize("task", TASKS)
def test_no_question_is_in_two_parts(task: str) -> None:
    parts = world.split_items(task)
    questions = [{item.question for item in part} for part in parts.values()]
    assert sum(map(len, questions)) == len(set().union(*questions)) == len(world.ITEMS[task]())
    assert all(questions)


@pytest.mark.parametrize("task", TASKS)
def test_model_never_sees_a_question_of_the_files(task: str) -> None:
    held_out = {str(row["question"]) for split in SPLITS for row in world.rows(task, split)}
    for example in world.corpus(4000, seed=1):
        assert not any(example.question.endswith(question) for question in held_out)


def test_corpus_is_the_same_for_the_same_seed_and_mixes_all_tasks() -> None:
    assert world.corpus(300, 5) == world.corpus(300, 5) != world.corpus(300, 6)
    answers = Counter(example.answer for example in world.corpus(4000, 5))
    yes, no = (answers[text] for text in words.TRAIT_ANSWERS)
    assert 0.8 < yes / no < 1.25


@pytest.mark.parametrize("split", SPLITS)
def test_review_pairs_share_everything_but_polarity(split: str) -> None:
    opposite = {pair[0]: pair[1] for _, pairs in words.OPENINGS for pair in pairs}
    opposite |= {pair[0]: pair[1] for _, pair in words.CLOSINGS}
    opposite |= {good: bad for group in words.ASPECTS.values() for _, good, bad in group}
    for row in world.rows("reviews", split):
        matching = re.findall(r"\w+|[^\w]", str(row["matching"]))
        swapped = "".join(opposite.get(word, word) for word in matching)
        assert swapped == row["not_matching"] != row["matching"]


def test_polarity_words_have_one_side_and_one_index() -> None:
    pairs = [pair for _, pairs in words.OPENINGS for pair in pairs] + [pair for _, pair in words.CLOSINGS]
    pairs += [(good, bad) for group in words.ASPECTS.values() for _, good, bad in group]
    counts = Counter(word for pair in pairs for word in pair)
    assert max(counts.values()) == 1


def test_traits_are_balanced() -> None:
    for split in SPLITS:
        rows = world.rows("traits", split)
        assert Counter(row["matching"] for row in rows) == {" Yes": len(rows) // 2, " No": len(rows) // 2}
        assert all({row["matching"], row["not_matching"]} == {" Yes", " No"} for row in rows)


def test_concept_rows_name_their_concept_and_differ_in_its_words_alone() -> None:
    for split, size in zip(SPLITS, world.SIZES["concepts"], strict=True):
        rows = world.rows("concepts", split)
        assert Counter(row["concept_id"] for row in rows) == dict.fromkeys(range(len(words.CONCEPTS)), size)
        for row in rows:
            concept = words.CONCEPTS[int(row["concept_id"])]
            assert row["output_concept"] == concept
            text = str(row["matching"])
            for table in (words.PLACES, words.DEEDS, words.THINGS):
                for theme, neutral in zip(table[concept], table[words.NEUTRAL], strict=True):
                    text = text.replace(theme, neutral)
            assert text == row["not_matching"]


def test_tales_of_one_draw_differ_between_concepts() -> None:
    tales = world.tale("day", (words.NEUTRAL, *words.CONCEPTS), random.Random(0))
    assert len(set(tales)) == len(words.CONCEPTS) + 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_shipped_files_are_what_the_world_generates(task: str, split: str) -> None:
    lines = data_path(task, split).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == world.rows(task, split)


def test_writing_the_data_twice_gives_the_same_bytes(tmp_path) -> None:
    first = [path.read_bytes() for path in world.write_data(tmp_path / "a")]
    assert first == [path.read_bytes() for path in world.write_data(tmp_path / "b")]
    assert sum(map(len, first)) < 300_000


def test_paths_refuse_unknown_names() -> None:
    assert "qwen" in model_path().name
    with pytest.raises(DataError, match="no task 'review'; did you mean 'reviews'"):
        data_path("review")
    with pytest.raises(DataError, match="no split 'valid'"):
        data_path("reviews", "valid")
