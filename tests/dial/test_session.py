"""Answers at strengths of their own, whoever else is at the page; a pair's curves; a model left as it was."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laws import noisy

from easyedit_split import PreferencePair, generate, sweep
from easyedit_split.dial.asked import Asked, Row, Strengths
from easyedit_split.dial.change import DialledChange
from easyedit_split.dial.session import Session
from easyedit_split.errors import ArtifactError, ConfigError, DataError

NEW = 6


def _changes(model: Any) -> list[DialledChange]:
    artifacts = [noisy(model, "local_weight", scale=0.3), noisy(model, "vector", layer=2, scale=0.5, seed=2)]
    return [DialledChange(a.form, Path("."), None, a, None, None) for a in artifacts]


def _asked(*strengths: tuple[float, float, float], question: str = "Hi", temperature: float = 0.0) -> Asked:
    """One row for each (m1 and m2 of the first change, m of the second)."""
    turns = ({"role": "user", "content": question},)
    rows = tuple(Row(turns, (Strengths(a, b), Strengths(c, c))) for a, b, c in strengths)
    return Asked(rows, NEW, temperature, 5)


def _alone(model: Any, tokenizer: Any, changes: Any, row: tuple[float, float, float], **more: Any) -> str:
    a, b, c = row
    with changes[0].artifact.attach(model, m1=a, m2=b), changes[1].artifact.attach(model, c):
        return generate(model, tokenizer, ["Hi"], max_new_tokens=NEW, seed=5, **more)[0]


ROWS = [(0.0, 0.0, 0.0), (2.0, 2.0, 0.0), (0.0, 0.0, -2.0), (1.0, -1.0, 3.0)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_row_is_generate_at_its_strengths(lend: Any, tokenizer: Any, temperature: float) -> None:
    model = lend("qwen2")
    changes = _changes(model)
    with Session(model, tokenizer, changes, "tiny") as session:
        texts = list(session.answers(_asked(*ROWS, temperature=temperature)))[-1]
        assert session.answering == 0
    expected = [_alone(model, tokenizer, changes, row, temperature=temperature) for row in ROWS]
    assert texts == expected
    assert len(set(texts)) == len(ROWS)


def test_several_people_do_not_get_each_others_strength(lend: Any, tokenizer: Any) -> None:
    model = lend("llama")
    changes = _changes(model)
    expected = [_alone(model, tokenizer, changes, row) for row in ROWS]
    found: dict[int, list[str]] = {k: [] for k in range(len(ROWS))}
    together = threading.Barrier(len(ROWS))
    steps: list[int] = []
    with Session(model, tokenizer, changes, "tiny") as session:

        def person(number: int) -> None:
            together.wait()
            for _ in range(3):
                for written in session.answers(_asked(ROWS[number])):
                    steps.append(number)
                    texts = written
                found[number] += texts

        people = [threading.Thread(target=person, args=(number,)) for number in found]
        for one in people:
            one.start()
        for one in people:
            one.join()
    assert found == {number: [text] * 3 for number, text in enumerate(expected)}
    changes_of_speaker = sum(a != b for a, b in zip(steps, steps[1:], strict=False))
    assert changes_of_speaker > len(steps) / 2, "they did not take turns: the test shows nothing"


def test_a_pair_scored_while_someone_reads_is_the_sweep_of_that_pair(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    changes = _changes(model)
    pair = PreferencePair("Was it good?", "Yes, it was.", "No.")
    table = sweep(model, tokenizer, [pair], changes[0].artifact, np.linspace(-4, 4, 25), "sum")
    with Session(model, tokenizer, changes, "tiny") as session:
        answers = session.answers(_asked(ROWS[3]))
        next(answers)
        told = session.score(0, pair.question, pair.matching, pair.not_matching)
        assert list(answers)[-1] == [_alone(model, tokenizer, changes, ROWS[3])]
    np.testing.assert_allclose(told["preference"], table.preference()[:, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(told["utility"], table.utility()[:, 0], rtol=1e-5, atol=1e-5)
    assert told["m"] == table.factors.tolist()


def test_stopping_frees_the_model_and_a_mistake_is_told(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    changes = _changes(model)
    with Session(model, tokenizer, changes, "tiny") as session:
        answers = session.answers(_asked(ROWS[1]))
        next(answers)
        assert session.answering == 1
        answers.close()
        assert session.answering == 0
        assert generate(model, tokenizer, ["Hi"], max_new_tokens=NEW)[0] == _of_fresh_model(tokenizer, ROWS[0])
        with pytest.raises(DataError, match="context of 256"):
            next(session.answers(_asked(ROWS[1], question="x" * 300)))
        with pytest.raises(ConfigError, match="temperature = -1"):
            next(session.answers(_asked(ROWS[1], temperature=-1.0)))
        with pytest.raises(DataError, match="matching answer is empty"):
            session.score(0, "q", " ", "no")
        assert session.answering == 0
        assert list(session.answers(_asked(ROWS[1])))[-1] == [_of_fresh_model(tokenizer, ROWS[1])]


def _of_fresh_model(tokenizer: Any, row: tuple[float, float, float]) -> str:
    from tiny import tiny_model

    model = tiny_model("qwen2")
    return _alone(model, tokenizer, _changes(model), row)


def test_a_change_of_another_model_is_refused_and_nothing_stays(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    foreign = DialledChange("foreign", Path("."), None, noisy(lend("llama")), None, None)
    with pytest.raises(ArtifactError, match="the change was made for"):
        Session(model, tokenizer, [*_changes(model), foreign], "tiny")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ConfigError, match="no change to turn"):
        Session(model, tokenizer, [], "tiny")


def test_changes_of_different_prompts_are_opened_one_at_a_time(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    changes = _changes(model)
    changes[1].artifact.origin["system_prompt"] = "Be kind."
    with pytest.raises(ConfigError, match="open them one at a time"):
        Session(model, tokenizer, changes, "tiny")
