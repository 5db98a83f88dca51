"""What a request may ask for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from changes import CHANGES, SWEPT
from hypothesis import given
from hypothesis import strategies as st

from easyedit_split.errors import ConfigError
from easyedit_split.serving.catalogue import Catalogue
from easyedit_split.serving.request import FIELD, RESOLVED, check_fields, resolve


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Catalogue:
    return Catalogue.read([folder / name for name in CHANGES])


@pytest.mark.parametrize(
    ("asked", "m1", "m2"),
    [
        ("local@2", 2.0, 2.0), ("local@2.0", 2.0, 2.0), ("local@-1e-1", -0.1, -0.1), ("local@+.5", 0.5, 0.5),
        ("local@m1=2,m2=-0.5", 2.0, -0.5), ("local@m2=3", 0.0, 3.0), (["local@2"], 2.0, 2.0),
        ("vector@2", 0.0, 2.0), ("lora@2", 2.0, 0.0), ("vector@40!", 0.0, 40.0),
    ],
)  # fmt: skip
def test_a_strength_is_read(catalogue: Catalogue, asked: Any, m1: float, m2: float) -> None:
    (change,) = resolve(catalogue, asked, prompt_length=9)
    assert (change.m1, change.m2, change.start) == (m1, m2, 0)


def test_the_first_steered_position_is_that_of_the_rule(catalogue: Catalogue) -> None:
    changes = resolve(catalogue, ["vector@1", "answer_vector@1", "late_lora@1"], prompt_length=9)
    assert [change.start for change in changes] == [0, 8, 5]


@pytest.mark.parametrize("asked", ["local@0", "local@-0.0", "local@m1=0,m2=0", "vector@m1=3", "lora@m2=1"])
def test_a_change_of_strength_0_is_none(catalogue: Catalogue, asked: str) -> None:
    assert resolve(catalogue, asked, prompt_length=9) == []


def test_without_a_strength_it_is_the_recommended_one(catalogue: Catalogue) -> None:
    found = catalogue.find(SWEPT)
    assert found is not None and found[1].recommended is not None
    assert resolve(catalogue, SWEPT, 9) == resolve(catalogue, f"{SWEPT}@{found[1].recommended!r}", 9)
    with pytest.raises(ConfigError, match="'lora' has no recommended strength.*'lora@1'"):
        resolve(catalogue, "lora", 9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("vectr@2", "no artifact named 'vectr' is served; did you mean 'vector'"), ("", "no artifact named ''"),
        ("/etc/passwd@1", "no artifact named"), ("../vector@1", "no artifact named"),
        ("vector@", "no finite number"), ("vector@two", "no finite number"), ("vector@nan", "no finite number"),
        ("vector@inf", "no finite number"), ("vector@1e99", "no finite number"), ("vector@1_0", "no finite number"),
        ("vector@ 1", "no finite number"), ("vector@٣", "no finite number"), ("vector@1@2", "no finite number"),
        ("vector@0x10", "no finite number"), ("vector@" + "1" * 9999, "no finite number"),
        ("vector@7", r"past what was swept \(-6 to 6\)"), ("vector@m1=1,m2=-6.1", "past what was swept"),
        ("local@m1=1,m1=2", "each once"), ("local@m=1", "each once"), ("local@m1=1,", "each once"),
        (["vector@1", "vector@2"], "twice"), ([], "give a text"), (3, "give a text"), (None, "give a text"),
        ([1], "give a text"), ({"vector": 1}, "give a text"), (["lora@1"] * 99, "99 changes"), (True, "give a text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_short_sentence(catalogue: Catalogue, asked: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        resolve(catalogue, asked, prompt_length=9)
    assert len(str(error.value)) < 400


@given(st.one_of(st.text(), st.lists(st.text()), st.builds("vector@{}".format, st.text()), st.builds(
    "local@{}".format, st.floats())))  # fmt: skip
def test_anything_is_steered_or_refused(catalogue: Catalogue, asked: Any) -> None:
    try:
        changes = resolve(catalogue, asked, prompt_length=9)
    except ConfigError:
        return
    assert all(math.isfinite(m) for change in changes for m in (change.m1, change.m2))


@pytest.mark.parametrize("key", ["Steer", "steering", "steer_m", "steer.lora", "STEER"])
def test_a_field_that_looks_like_steer_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="is unknown"):
        check_fields({key: 1})
    check_fields({FIELD: "vector@1", RESOLVED: [], "other": 1})
