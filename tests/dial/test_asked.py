"""What a page may not ask for, each refused in one sentence."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from easyedit_split.dial.asked import asked, chosen, text
from easyedit_split.errors import ConfigError, DataError, SteeringError

GOOD: dict[str, Any] = {
    "rows": [{"turns": [{"role": "user", "content": "Hi"}], "strengths": [{"m1": 1, "m2": 2.5}]}],
    "max_new_tokens": 8, "temperature": 0, "seed": 3,
}  # fmt: skip


def test_a_good_request() -> None:
    found = asked(GOOD, 1)
    assert (found.max_new_tokens, found.temperature, found.seed) == (8, 0, 3)
    assert (found.rows[0].strengths[0].m1, found.rows[0].strengths[0].m2) == (1, 2.5)
    assert found.rows[0].turns == ({"role": "user", "content": "Hi"},)


def _with(path: str, value: Any) -> Any:
    body = copy.deepcopy(GOOD)
    *inner, last = [int(p) if p.isdecimal() else p for p in path.split(".")]
    place: Any = body
    for part in inner:
        place = place[part]
    place[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("rows", [], "0 rows are asked for: give 1 to 16"),
        ("rows", GOOD["rows"] * 17, "17 rows"),
        ("rows", "all", "rows is 'all': it must be a list"),
        ("rows.0", 3, "turns is None"),
        ("rows.0.turns", [], "there is no question: write one"),
        ("rows.0.turns", [{"role": "user", "content": "  "}], "there is no question"),
        ("rows.0.turns", [{"role": "assistant", "content": "Hi"}], "there is no question"),
        ("rows.0.turns.0.role", "system", "a turn has the role 'system'"),
        ("rows.0.turns.0.content", None, "content is None: it must be a str"),
        ("rows.0.strengths", [], "0 strengths for 1 changes"),
        ("rows.0.strengths.0.m1", "2", "m1 is '2': give a finite number"),
        ("rows.0.strengths.0.m2", float("nan"), "m2 is nan"),
        ("rows.0.strengths.0.m2", float("inf"), "m2 is inf"),
        ("rows.0.strengths.0.m1", True, "m1 is True"),
        ("max_new_tokens", 0, "max_new_tokens = 0 is out of range"),
        ("max_new_tokens", 1e9, "max_new_tokens = 1000000000 is out of range"),
        ("max_new_tokens", None, "max_new_tokens is None"),
        ("seed", 1.5, "seed = 1.5 is no whole number"),
        ("temperature", "hot", "temperature is 'hot'"),
    ],
)
def test_a_bad_request_is_one_sentence(path: str, value: Any, said: str) -> None:
    with pytest.raises(SteeringError) as error:
        asked(_with(path, value), 1)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("body", [None, 3, [], "x", {}])
def test_what_is_no_request_at_all(body: Any) -> None:
    with pytest.raises(ConfigError, match="rows is None"):
        asked(body, 1)


def test_a_change_and_a_text() -> None:
    assert chosen({"change": 1}, "ab") == 1
    for wrong in (2, -1, 0.5):
        with pytest.raises(ConfigError, match="does not exist: there are 2"):
            chosen({"change": wrong}, "ab")
    assert text({"question": "q"}, "question") == "q"
    with pytest.raises((ConfigError, DataError), match="question is 3"):
        text({"question": 3}, "question")
