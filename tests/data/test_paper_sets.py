"""Readers, the paper's splits on files of the same layout, manifests, and the model's own answers."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.data.manifest import check_manifest, manifest, row_hash, write_manifest
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.paper_sets import (
    DataSplit,
    Prompted,
    axbench_rows,
    load_named_pairs,
    load_rows,
    paper_split,
    without_doubles,
)
from easyedit_split.errors import ArtifactError, DataError
from easyedit_split.models.identity import model_fingerprint
from easyedit_split.reproduce.own_answers import model_answers, with_model_answers

REAL = os.environ.get("EASYEDIT_SPLIT_DATA", "")
needs_real = pytest.mark.skipif(
    not Path(REAL, "psychopathy").is_dir() if REAL else True,
    reason="EASYEDIT_SPLIT_DATA does not name a folder with the paper's data files",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of the real ones' names, columns and quirks: doubles, a shared question, a double input."""
    (tmp_path / "psychopathy").mkdir()
    rows = [
        {
            "question": f"Would you say {i}?", "statement": f"{i}", "label_confidence": 0.9,
            "answer_matching_behavior": (" Yes", " No")[i % 2], "answer_not_matching_behavior": (" No", " Yes")[i % 2],
        }
        for i in range(700)
    ]  # fmt: skip
    _jsonl(tmp_path / "psychopathy" / "psychopathy.jsonl", [*rows, rows[0]])
    (tmp_path / "powerseeking").mkdir()
    _csv(tmp_path / "powerseeking" / "test.csv", [_power(f"test {i}") for i in range(200)])
    train = [_power(f"train {i}") for i in range(510)] + [_power("test 7"), _power("train 3"), _power("train 4")]
    _csv(tmp_path / "powerseeking" / "train.csv", train)
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "axbench").mkdir()
    table = [_axbench(f"input {c}-{i}", f"text {i}", c) for c in range(11) for i in range(72)]
    table[5] = _axbench("input 0-4", "another text", 0)
    table += [_axbench(f"negative {i}", "plain", -1) for i in range(20)]
    path = tmp_path / "axbench" / "concept10_9b_l20_train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return tmp_path


def _power(question: str) -> dict[str, str]:
    return {"question": question, "matching": f"more power, {question}", "not_matching": f"no power, {question}"}


def _axbench(text: str, output: str, concept: int) -> dict[str, Any]:
    return {"input": text, "output": output, "output_concept": f"concept {concept}", "concept_id": concept}


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _check_psychopathy(split: DataSplit) -> None:
    assert (len(split.train), len(split.test)) == (500, 100)
    for part in (split.train, split.test):
        assert Counter(p.matching for p in part) == {" Yes": len(part) / 2, " No": len(part) / 2}
    assert not {p.question for p in split.train} & {p.question for p in split.test}
    assert len({p.question for p in split.train}) == 500


def _check_powerseeking(split: DataSplit) -> None:
    assert (len(split.train), len(split.test)) == (500, 200)
    assert not {p.question for p in split.train} & {p.question for p in split.test}
    assert len({p.question for p in split.train}) == 500


def _check_axbench(split: DataSplit) -> None:
    assert Counter(p.concept_id for p in split.train) == dict.fromkeys(range(10), 64)
    assert Counter(p.concept_id for p in split.test) == dict.fromkeys(range(10), 8)
    for concept in range(10):
        inputs = [{p.question for p in part if p.concept_id == concept} for part in (split.train, split.test)]
        assert not inputs[0] & inputs[1]


CHECKS = {"psychopathy": _check_psychopathy, "powerseeking": _check_powerseeking, "axbench": _check_axbench}


@pytest.mark.parametrize("name", CHECKS)
def test_paper_splits(name: str, folder: Path) -> None:
    split = paper_split(name, folder)
    CHECKS[name](split)
    assert paper_split(name, folder) == split
    assert paper_split(name, folder, seed=1).train != split.train


@needs_real
@pytest.mark.parametrize("name", CHECKS)
def test_paper_splits_of_the_real_files(name: str) -> None:
    CHECKS[name](paper_split(name, REAL))


def test_too_few_rows_are_an_error_that_says_how_many(folder: Path) -> None:
    path = folder / "psychopathy" / "psychopathy.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:100]))
    with pytest.raises(DataError, match="50 rows .* needs 300"):
        paper_split("psychopathy", folder)


def test_unknown_set_and_missing_file_are_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="psychopathy"):
        paper_split("psychopaty", folder)
    with pytest.raises(DataError, match="does not exist"):
        paper_split("psychopathy", tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_a_folder_is_read_through_datasets_as_its_file_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [_power("a"), _power("b")]
    source = tmp_path / "set"
    source.mkdir()
    path = source / f"train.{kind}"
    if kind == "jsonl":
        _jsonl(path, rows)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "csv":
        _csv(path, rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert load_named_pairs(source) == load_named_pairs(path)
    assert [row for _, row in load_rows(source)] == rows


def test_other_column_names_are_mapped(tmp_path: Path) -> None:
    _jsonl(tmp_path / "a.jsonl", [{"ask": "q", "good": "x", "bad": "y"}])
    columns = {"question": "ask", "matching": "good", "not_matching": "bad"}
    assert load_named_pairs(tmp_path / "a.jsonl", columns=columns) == [PreferencePair("q", "x", "y")]
    with pytest.raises(DataError, match="goood"):
        load_named_pairs(tmp_path / "a.jsonl", columns={**columns, "matching": "goood"})


def test_a_data_set_that_is_nowhere_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give a file"):
        load_rows(tmp_path / "nothing")


def test_axbench_files_with_both_answers_are_read_as_they_are() -> None:
    row = {"input": "q", "winning_output": "a", "losing_output": "b", "output_concept": "c", "concept_id": 3}
    assert axbench_rows([("row 1", row)], "x") == [PreferencePair("q", "a", "b", "c", 3)]
    with pytest.raises(DataError, match="output_concept"):
        axbench_rows([("row 1", {"input": "q", "output": "a"})], "x")


def test_first_of_equal_questions_stays() -> None:
    pairs = [PreferencePair("q", "a", "b"), PreferencePair(" q ", "c", "d"), PreferencePair("r", "a", "b")]
    assert without_doubles(pairs) == [pairs[0], pairs[2]]


def test_manifest_finds_a_changed_row_and_a_changed_count(folder: Path, tmp_path: Path) -> None:
    split = paper_split("powerseeking", folder)
    path = write_manifest(split, tmp_path / "m.json")
    check_manifest(split, path)
    changed = (replace(split.test[0], matching="x"), *split.test[1:])  # type: ignore[type-var]
    with pytest.raises(DataError, match="test row 0"):
        check_manifest(replace(split, test=changed), path)
    with pytest.raises(DataError, match="has 500 rows but 499"):
        check_manifest(replace(split, train=split.train[1:]), path)
    with pytest.raises(ArtifactError):
        check_manifest(split, tmp_path / "none.json")
    assert len(manifest(split)["sources"]["train.csv"]) == 64


def test_row_hash_sees_every_field() -> None:
    row = Prompted("q", "a", "c", 1)
    others = [replace(row, **{k: v}) for k, v in [("question", "r"), ("matching", "b"), ("concept", None)]]
    assert len({row_hash(r) for r in [row, replace(row, concept_id=2), *others]}) == 5


def test_model_answers_are_cached_a_batch_at_a_time_and_resumed(tmp_path: Path) -> None:
    model, tokenizer, cache = tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "answers.jsonl"
    questions = [f"question {i}" for i in range(5)]
    options = {"max_new_tokens": 4, "batch_size": 2}
    whole = model_answers(model, tokenizer, questions, tmp_path / "whole.jsonl", **options)
    assert model_answers(model, tokenizer, questions[:2], cache, **options) == whole[:2]
    cache.write_text(cache.read_text() + '{"key": "cut sh')
    assert model_answers(model, tokenizer, questions, cache, **options) == whole
    lines = [json.loads(line) for line in cache.read_text().splitlines() if line.startswith('{"key"') and "}" in line]
    assert len(lines) == 5
    _refuse_to_run(model)
    assert model_answers(model, tokenizer, questions, cache, **options) == whole


def _refuse_to_run(model: Any) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model ran although every answer was in the cache")

    model.register_forward_pre_hook(refuse)


def test_fingerprint_tells_models_apart() -> None:
    assert model_fingerprint(tiny_model("qwen2")) == model_fingerprint(tiny_model("qwen2"))
    assert model_fingerprint(tiny_model("qwen2")) != model_fingerprint(tiny_model("qwen2", seed=1))


def test_rows_whose_answer_is_no_negative_are_left_out_loudly() -> None:
    rows = [Prompted(f"q{i}", "match", "c", 0) for i in range(3)]
    with pytest.warns(UserWarning, match="2 of 3"):
        assert with_model_answers(rows, ["other", " ", "match "]) == [PreferencePair("q0", "match", "other", "c", 0)]
    with pytest.raises(DataError, match="none of the 1"):
        with_model_answers(rows[:1], [""])
