"""What a method is called: its objective and form, and no folder where that is enough."""

from __future__ import annotations

import pytest

from easyedit_split.analysis.names import method_name, method_names


def _header(objective: object, form: object = "lora") -> dict[str, object]:
    return {"artifact": {"form": form, "origin": {"objective": {"name": objective}}}}


def test_a_name_is_objective_and_form() -> None:
    assert method_name(_header("split", "local_weight")) == "SPLIT local weight"
    assert method_name(_header("diff_mean", "vector")) == "DiffMean vector"
    assert method_name(_header("mine")) == "mine LoRA"
    imported = {"artifact": {"form": "vector", "origin": {"imported": {"file": "v.gguf"}}}}
    assert method_name(imported) == "imported vector"


@pytest.mark.parametrize("header", [{}, {"artifact": None}, {"artifact": {"origin": [1]}}, _header(1), _header("a", 2)])
def test_a_header_that_does_not_say_it_gives_none(header: dict[str, object]) -> None:
    assert method_name(header) is None


def test_two_of_one_method_are_told_apart_by_what_they_were_called() -> None:
    headers = {"a": _header("split"), "b": _header("split"), "c": _header("sft"), "d": {}, "SFT LoRA": {}}
    assert method_names(headers) == {
        "a": "SPLIT LoRA (a)", "b": "SPLIT LoRA (b)", "c": "SFT LoRA (c)", "d": "d", "SFT LoRA": "SFT LoRA (SFT LoRA)",
    }  # fmt: skip
