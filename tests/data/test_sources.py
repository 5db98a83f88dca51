"""One rule for names of data: files, EasyEdit's names, the authors' names, the micro-world."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from easyedit_split.data.paper_sets import FILES, paper_split
from easyedit_split.data.sources import load_part
from easyedit_split.demo import data_path
from easyedit_split.errors import DataError


def rows(text: str, count: int = 3, **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"{text} {i}", "matching": "yes", "not_matching": "no", **more} for i in range(count)]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def axbench(count: int, concept: int, category: str = "positive") -> list[dict[str, Any]]:
    return [
        {
            "input": f"input {concept} {i}", "winning_output": "a", "losing_output": "b", "concept_id": concept,
            "output_concept": "c", "concept_genre": "text", "category": category,
        }
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "suffix"), [("psychopathy", "jsonl"), ("powerseeking", "csv")])
def test_easyedits_files_are_found_by_the_data_sets_name_and_by_its_folder(
    name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("train", "test"):
        write(tmp_path / "data" / name / f"{part}.{suffix}", rows(part))
    monkeypatch.chdir(tmp_path)
    for source, base in ((name, Path("data")), (name, tmp_path / "data"), (tmp_path / "data" / name, Path("data"))):
        for part in ("train", "test"):
            assert [p.question for p in load_part(source, part, base)] == [f"{part} {i}" for i in range(3)]


@pytest.mark.parametrize("file", FILES["axbench"]["whole"][:2])
def test_easyedits_axbench_files_are_split_by_concept_and_their_negative_rows_left_out(
    file: str, tmp_path: Path
) -> None:
    content = [row for concept in (0, 1) for row in axbench(72, concept)]
    write(tmp_path / "axbench" / file, [*content, *axbench(9, -1), *axbench(9, 1, "negative")])
    train, test = load_part("axbench", "train", tmp_path), load_part("axbench", "test", tmp_path)
    assert (len(train), len(test)) == (128, 16)
    assert {p.concept_id for p in train} == {0, 1}
    assert not {(p.concept_id, p.question) for p in train} & {(p.concept_id, p.question) for p in test}
    assert tuple(train) == paper_split("axbench", tmp_path).train


def test_the_whole_psychopathy_file_is_split_where_there_are_no_parts(tmp_path: Path) -> None:
    answers = (("yes", "no"), ("no", "yes"))
    content = [{"question": f"q{i}", "matching": a, "not_matching": b} for i in range(700) for a, b in [answers[i % 2]]]
    write(tmp_path / "psychopathy" / "psychopathy.jsonl", content)
    assert [len(load_part(tmp_path / "psychopathy", part)) for part in ("train", "test")] == [500, 100]
    for part in ("train", "test"):
        write(tmp_path / "psychopathy" / f"{part}.jsonl", rows(part))
    assert paper_split("psychopathy", tmp_path).rules == "as in its files"
    assert len(load_part("psychopathy", "test", tmp_path)) == 3


def test_axbench_without_second_answers_says_what_writes_them(tmp_path: Path) -> None:
    content = [{"input": f"i{i}", "output": "o", "output_concept": "c", "concept_id": 0} for i in range(80)]
    write(tmp_path / "axbench" / "concept10_9b_l20_train.parquet", content)
    with pytest.raises(DataError, match="no answers that do not match .* 'reproduce' has the model write them"):
        load_part("axbench", "train", tmp_path)


def test_a_file_is_all_of_it_and_the_micro_world_has_its_own_name(tmp_path: Path) -> None:
    assert len(load_part(write(tmp_path / "mine.jsonl", rows("q", 4)), "train")) == 4
    assert len(load_part("demo:reviews", "test")) == len(data_path("reviews", "test").read_text().splitlines())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("psychopathy", "'psychopathy' is not in .*: put it into .*psychopathy"),
        ("no.jsonl", "no.jsonl does not exist"),
    ],
)
def test_what_is_not_there_is_named(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_part(source, "train", tmp_path)


def test_an_empty_folder_lists_the_files_it_could_hold(tmp_path: Path) -> None:
    (tmp_path / "axbench").mkdir()
    with pytest.raises(DataError, match="axbench_train.parquet, prod_9b_l20_v1/generate/dpo_train_data.parquet"):
        load_part("axbench", "train", tmp_path)
