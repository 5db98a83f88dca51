"""What is found in pairs: each fault by a pair that has it, and nothing in pairs that have none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_tokenizer

from easyedit_split.cli import main
from easyedit_split.data.lint import lint, lint_losses, lint_tokens, readable_pairs
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import Encoder
from easyedit_split.demo import data_path
from easyedit_split.errors import DataError

THINGS = ("sofa", "phone", "film", "hotel", "soup", "book", "lamp", "car", "tent", "shoe", "desk", "song")
SOUND = [
    PreferencePair(f"What of the {thing}?", f"I like the {thing}, it is {good}.", f"I hate the {thing}, it is {bad}.")
    for thing in THINGS
    for good, bad in (("fine", "awful"), ("great", "poor"))
]


def checks(pairs: list[PreferencePair], training: list[PreferencePair] | None = None) -> dict[str, tuple[int, ...]]:
    return {finding.check: finding.rows for finding in lint(pairs, training or [])}


def test_sound_pairs_have_no_findings() -> None:
    assert checks(SOUND) == {}
    assert checks(SOUND[:12], SOUND[12:]) == {}


@pytest.mark.parametrize(
    ("check", "pair"),
    [
        ("duplicate", replace(SOUND[3], question=f" {SOUND[3].question}  ")),
        ("contradicts another pair", SOUND[3].swapped()),
        ("near-equal answers", replace(SOUND[3], matching="I  hate it!", not_matching="i hate it.")),
        ("uneven lengths", replace(SOUND[3], matching="Good. " * 20)),
        ("answer repeats the question", PreferencePair("Would you buy it again?", "Would you buy it again? Yes", "No")),
        (
            "question gives an answer away",
            PreferencePair("Say that it is a wonderful day", "It is a wonderful day", "x"),
        ),
    ],
)
def test_a_pair_with_a_fault(check: str, pair: PreferencePair) -> None:
    found = checks([*SOUND, pair])
    assert len(SOUND) in found[check]
    assert check not in checks(SOUND)


def test_both_answers_in_the_question_give_nothing_away() -> None:
    options = ("I would rather stay here", "I would rather go there")
    assert "question gives an answer away" not in checks([PreferencePair(f"{options[0]} or {options[1]}?", *options)])


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("the wanted answer is longer", lambda text: f"{text} Yes"),
        ("the wanted answer has an exclamation mark", lambda text: text.replace(",", "!")),
        ("the wanted answer has several lines", lambda text: text.replace(", ", ",\n")),
        ("the wanted answer has a list", lambda text: f"- {text}"),
        ("the other answer begins with a capital", lambda text: text.replace("I", "i")),
    ],
)
def test_a_cue_of_the_surface(check: str, change: Any) -> None:
    """Found where it tells the answers apart in all pairs; not where it does in half of them, nor in a few pairs."""
    wrong = [replace(p, matching=change(p.matching)) for p in SOUND]
    found = {f.check: f for f in lint(wrong)}
    assert len(found[check].rows) >= 0.75 * len(SOUND) and "the reverse in 0" in found[check].detail
    half = [p if i % 2 else replace(p, matching=change(p.matching)) for i, p in enumerate(SOUND)]
    even = [replace(p, not_matching=change(p.not_matching)) if i % 2 else p for i, p in enumerate(half)]
    assert check not in checks(even)
    assert check not in checks(wrong[:5])  # five coins fall on one side in one of sixteen times


def test_labels() -> None:
    def asked(i: int, label: str, other: str) -> PreferencePair:
        return PreferencePair(f"Which one, {i}?", f"({label}) this {i}", f"({other}) that {i}")

    assert "unbalanced labels" in checks([asked(i, "A", "B") for i in range(20)])
    assert "unbalanced labels" not in checks([asked(i, *("AB" if i % 2 else "BA")) for i in range(20)])


def test_test_rows_found_in_training() -> None:
    assert checks(SOUND, [replace(SOUND[5], not_matching="Something else.")])["seen in training"] == (5,)
    assert checks(SOUND, [replace(SOUND[5], question="Another question?")]) == {}


def test_lengths_in_tokens() -> None:
    encoder = Encoder(tiny_tokenizer())
    longest = max(len(encoder.pair(p)) for p in SOUND)
    assert lint_tokens(SOUND, encoder, longest) == []
    (found,) = lint_tokens(SOUND, encoder, longest - 1)
    assert found.check == "longer than the context" and all(len(encoder.pair(SOUND[i])) == longest for i in found.rows)
    plain = Encoder(tiny_tokenizer(), chat=False)
    (empty,) = lint_tokens([*SOUND, replace(SOUND[0], question="")], plain, None)  # its answers would follow nothing
    assert (empty.check, empty.rows) == ("no tokens to tell apart", (len(SOUND),))


def test_losses() -> None:
    words = 260
    won, lost, random = (5.0, 25.0), (30.0, 10.0), (8 * math.log(words) + 1, 1.0)
    found = lint_losses(*zip(won, lost, random, strict=True), [8.0, 8.0, 8.0], words)
    assert {f.check: f.rows for f in found} == {"already won": (0,), "hopeless": (2,)}


def test_rows_that_cannot_be_read_do_not_hide_the_others() -> None:
    rows = [("line 1", {"matching": "a", "not_matching": "b"}), ("line 2", {"matching": "a", "not_matching": "a"})]
    pairs, numbers, found = readable_pairs(rows, "x.jsonl")
    assert (len(pairs), numbers, [f.rows for f in found]) == (1, [0], [(1,)])
    assert found[0].detail.startswith("line 2: both answers are 'a'")
    with pytest.raises(DataError, match="both answers"):
        readable_pairs(rows[1:], "x.jsonl")
    with pytest.raises(DataError, match="holds no rows"):
        readable_pairs([], "x.jsonl")


def _file(path: Path, pairs: list[PreferencePair]) -> str:
    rows = [{"question": p.question, "matching": p.matching, "not_matching": p.not_matching} for p in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", _file(tmp_path / "a.jsonl", SOUND)]) == 0
    assert f"{len(SOUND)} pairs" in capsys.readouterr().out
    twice = _file(tmp_path / "b.jsonl", [*SOUND, SOUND[3]])
    assert main(["lint", twice, "--train", str(tmp_path / "a.jsonl")]) == 1
    out = capsys.readouterr().out
    assert f"line {len(SOUND) + 1}" in out and "seen in training" in out and "2 findings" in out
    assert main(["lint", "demo:reviews"]) == 0  # the shipped pairs are sound in their text
    assert main(["lint", "demo:concepts"]) == 1  # but there the wanted answer always is the longer one
    assert "the wanted answer is longer" in capsys.readouterr().out
    (tmp_path / "c.jsonl").write_text((tmp_path / "a.jsonl").read_text() + "oops\n")
    assert main(["lint", str(tmp_path / "c.jsonl")]) == 2
    assert main(["lint", str(tmp_path / "a.jsonl"), "--tokens"]) == 2
    assert "set model_name_or_path" in capsys.readouterr().err


def test_the_command_with_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Losses of the demo model: pairs that it wins are found by their preference at m = 0."""
    from easyedit_split import load_model, load_pairs
    from easyedit_split.sweeps.run import sweep

    pairs = load_pairs(data_path("reviews", "test"))
    assert isinstance(pairs, list)
    pairs = [*pairs[:8], *[p.swapped() for p in pairs[8:12]]]
    pairs.append(PreferencePair("What do you think of the sofa?", "I am happy with it.", "%%%% qqq zzz #### @@@@"))
    model, tokenizer = load_model("demo")
    table = sweep(model, tokenizer, pairs, None, [0.0], "sum")
    won = [i for i, v in enumerate(table.preference()[0]) if v >= 20]
    assert len(pairs) - 1 in won
    path = _file(tmp_path / "a.jsonl", pairs)
    assert main(["lint", path, "--losses", "model_name_or_path=demo"]) == 1
    out = capsys.readouterr().out
    assert "already won" in out and f"line {len(pairs)}" in out
