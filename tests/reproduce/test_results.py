"""Result files are JSON, whatever the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyedit_split.analysis.pareto import BUDGETS
from easyedit_split.reproduce.aggregate import gain, over_seeds
from easyedit_split.reproduce.results import read_result, write_result

NAN = float("nan")


def _refused(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def test_numbers_that_are_not_finite_are_null_and_left_out_as_before(tmp_path: Path) -> None:
    front = {"gain": [NAN, 1.0, 2.0, 3.0], "draws": [[NAN, 1.0, 2.0, 3.0], [NAN, 2.0, 2.0, np.float64("inf")]]}
    result: dict[str, Any] = {
        "inputs": "x", "cell": {"seed": 0}, "front": front, "fits": {"utility": NAN, "preference": 0.5},
    }  # fmt: skip
    write_result(tmp_path / "result.json", result)
    json.loads((tmp_path / "result.json").read_text(), parse_constant=_refused)
    found = read_result(tmp_path / "result.json")
    assert found is not None and found["front"]["gain"] == [None, 1.0, 2.0, 3.0]
    for column in ("utility", "preference"):
        assert over_seeds([found], lambda r, c=column: r["fits"][c]) == over_seeds(  # type: ignore[misc]
            [result],
            lambda r, c=column: r["fits"][c],  # type: ignore[misc]
        )
    for budget in BUDGETS[:3]:
        assert gain([found], budget) == gain([result], budget)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}'])
def test_what_is_no_result_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    assert read_result(path) is None
    path.write_text(text)
    assert read_result(path) is None
