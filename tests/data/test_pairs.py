"""Files of pairs: every format, every column name, and one sentence for each thing that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easyedit_split.data.pairs import PreferencePair, flat_pairs, load_pairs, pairs_hash
from easyedit_split.errors import DataError

ROW = {"question": "q", "matching": "yes", "not_matching": "no"}
PAIR = PreferencePair("q", "yes", "no")


def _file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _lines(*rows: Any) -> str:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)


@pytest.mark.parametrize(
    "names",
    [
        ("question", "matching", "not_matching"),
        ("question", "answer_matching_behavior", "answer_not_matching_behavior"),
        ("input", "winning_output", "losing_output"),
        ("prompt", "chosen", "rejected"),
    ],
)
def test_every_known_column_name(tmp_path: Path, names: tuple[str, str, str]) -> None:
    row = dict(zip(names, ("q", "yes", "no"), strict=True))
    assert load_pairs(_file(tmp_path, "a.jsonl", _lines(row, "", row))) == [PAIR, PAIR]
    assert load_pairs(_file(tmp_path, "a.json", json.dumps([row]))) == [PAIR]
    assert load_pairs(_file(tmp_path, "a.csv", f"{','.join(names)}\nq,yes,no\n")) == [PAIR]


def test_parquet_and_chosen_columns(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"x": ["q"], "good": ["yes"], "bad": ["no"]}), path)
    columns = {"question": "x", "matching": "good", "not_matching": "bad"}
    assert load_pairs(path, columns) == [PAIR]
    with pytest.raises(DataError, match="has no column 'best' for matching: it has x, good, bad"):
        load_pairs(path, {**columns, "matching": "best"})


def test_a_csv_with_quotes_newlines_and_a_byte_order_mark(tmp_path: Path) -> None:
    content = '\ufeffquestion,matching,not_matching\n"a, ""b""\nc",yes,no\n'
    assert load_pairs(_file(tmp_path, "a.csv", content)) == [PreferencePair('a, "b"\nc', "yes", "no")]
    jsonl = "\ufeff" + _lines(ROW)
    assert load_pairs(_file(tmp_path, "a.jsonl", jsonl)) == [PAIR]


def test_several_concepts(tmp_path: Path) -> None:
    rows = [{**ROW, "concept_id": i, "output_concept": f"c{i}"} for i in (3, 5, 3)]
    found = load_pairs(_file(tmp_path, "a.jsonl", _lines(*rows)))
    assert isinstance(found, dict)
    assert {k: len(v) for k, v in found.items()} == {3: 2, 5: 1}
    assert flat_pairs(found, 5)[0].concept == "c5"
    for chosen, message in ((None, r"several concepts \(3, 5\): choose one"), (4, "concept_id 4 is not in the data")):
        with pytest.raises(DataError, match=message):
            flat_pairs(found, chosen)
    with pytest.raises(DataError, match="concept_id 1 is not in the data: it holds 0"):
        flat_pairs([PAIR], 1)
    grouped = json.dumps([[3, [ROW, ROW]], [5, [ROW]]])
    again = load_pairs(_file(tmp_path, "b.json", grouped))
    assert isinstance(again, dict) and {k: len(v) for k, v in again.items()} == {3: 2, 5: 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "a.txt is not a data file this package reads: use one of .jsonl"),
        ("a.jsonl", "", "a.jsonl holds no rows"),
        ("a.jsonl", _lines(ROW, "{oops"), r"a.jsonl, line 2 is not JSON \(.* at column 2\): fix or remove it"),
        ("a.jsonl", _lines(ROW, "", "[1]"), "a.jsonl, line 3 is a list where an object with named fields"),
        ("a.jsonl", _lines(ROW, {**ROW, "matching": ""}), "a.jsonl, line 2: the matching answer is empty"),
        ("a.jsonl", _lines({**ROW, "not_matching": " \n"}), "line 1: the not_matching answer is empty"),
        ("a.jsonl", _lines({**ROW, "not_matching": "yes "}), "line 1: both answers are 'yes': a pair needs two"),
        ("a.jsonl", _lines({**ROW, "matching": 3}), "line 1: matching is 3: it must be text"),
        ("a.jsonl", _lines(ROW, {"question": "q", "matching": "a"}), "line 2: not_matching is None: it must be text"),
        ("a.jsonl", _lines({"question": "q", "matching": "a"}), "no column for the not_matching answer .*it has q"),
        ("a.jsonl", '{"question": "q", "matching": "\\ud800", "not_matching": "b"}', "line 1: matching holds half a"),
        ("a.jsonl", _lines({**ROW, "concept_id": "x"}), "line 1: concept_id is 'x': it must be a whole number"),
        ("a.jsonl", '{"concept_id": Infinity, "matching": "a", "not_matching": "b"}', "concept_id is inf"),
        ("a.jsonl", _lines({**ROW, "concept": 5}), "line 1: concept is 5: it must be text"),
        ("a.jsonl", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", "line 1 cannot be read"),
        ("a.jsonl", b"\xff\xfe{}", "a.jsonl is not UTF-8 text"),
        ("a.json", "{}", "holds a dict where a list of rows is needed"),
        ("a.json", "[1]", "holds a int where a row"),
        ("a.json", '[[3, ["x"]]]', "holds a str where a row"),
        ("a.csv", "question,matching,not_matching\nq,yes\n", "row 1: not_matching is None"),
        ("a.csv", "question,matching,not_matching\nq,yes,no\nq," + "x" * 200_000 + ",no\n", "row 2 is not CSV"),
        ("a.csv", "question,good,bad\nq,yes,no,more\n", "no column for the matching answer"),
        ("a.parquet", "PAR1", "is not a Parquet file"),
    ],
)
def test_what_can_be_wrong_with_a_file(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_pairs(_file(tmp_path, name, content))
    assert "\n" not in str(caught.value)


def test_a_file_or_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing.jsonl does not exist: check the path"):
        load_pairs(tmp_path / "missing.jsonl")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="does not exist"):
        load_pairs(tmp_path / "folder.csv")


def test_pairs_swap_and_hash() -> None:
    assert PAIR.swapped() == PreferencePair("q", "no", "yes")
    assert PAIR.swapped().swapped() == PAIR
    assert pairs_hash([PAIR]) == pairs_hash([PreferencePair("q", "yes", "no", concept="c")])
    assert len({pairs_hash(p) for p in ([PAIR], [PAIR.swapped()], [PAIR, PAIR], [])}) == 4
