"""What is taken away does what the page did: the Python is run, the command is run."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nasty import FOLDER, NASTY

from easyedit_split.cli import main
from easyedit_split.dial.asked import Asked, Row, Strengths
from easyedit_split.dial.change import find_changes
from easyedit_split.dial.recipes import NO_COMMAND, recipes
from easyedit_split.dial.session import Session

QUESTION = f"""Write a 'review' of the "sofa" $HOME \\n {NASTY}"""
WEIGHT, VECTOR, OFF = (Strengths(0.5, 0.5), Strengths(0.0, 0.0)), (Strengths(0.0, 0.0), Strengths(-1.25, -1.25)), 2 * (
    Strengths(0.0, 0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def session(demo: tuple[Any, Any], run_folder: Path) -> Iterator[Session]:
    changes = find_changes([run_folder])
    assert [c.name for c in changes] == [FOLDER, "mood"]
    with Session(*demo, changes, "demo") as opened:
        yield opened


def _asked(strengths: Any, *said: str, temperature: float = 0.0) -> Asked:
    roles = ("user", "assistant")
    turns = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(said or (QUESTION,)))
    return Asked((Row(turns, strengths),), 12, temperature, 4)


def _printed(python: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(python, "recipe", "exec"), {})
    return out.getvalue().removesuffix("\n")


@pytest.mark.parametrize("strengths", [OFF, WEIGHT, VECTOR, (Strengths(0.5, -1.0), Strengths(2.0, 2.0))])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_python_gives_the_same_answer(session: Session, strengths: Any, temperature: float) -> None:
    wanted = _asked(strengths, temperature=temperature)
    (text,) = list(session.answers(wanted))[-1]
    assert _printed(recipes(session, wanted)["python"]) == text


def test_the_python_of_a_conversation(session: Session) -> None:
    wanted = _asked(VECTOR, "Hi", "Hello.", QUESTION)
    assert _printed(recipes(session, wanted)["python"]) == list(session.answers(wanted))[-1][0]


@pytest.mark.parametrize("strengths", [OFF, WEIGHT, VECTOR])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_command_gives_the_same_answer(
    session: Session, strengths: Any, temperature: float, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = _asked(strengths, temperature=temperature)
    (text,) = list(session.answers(wanted))[-1]
    program, *arguments = shlex.split(recipes(session, wanted)["command"])
    assert program == "easyedit-split"
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.split("\n", 1)[1].strip() == text.strip()


def test_other_weights_are_insisted_on_in_what_is_taken_away(demo: tuple[Any, Any], run_folder: Path) -> None:
    with Session(*demo, find_changes([run_folder / "mood"], any_model=True), "demo") as session:
        wanted = _asked((Strengths(1.0, 1.0),))
        found = recipes(session, wanted)
        assert _printed(found["python"]) == list(session.answers(wanted))[-1][0]
        assert "any_model=True" in found["python"] and "--any-model" in shlex.split(found["command"])


def test_what_the_command_cannot_say_it_does_not_say(session: Session) -> None:
    for strengths in ((Strengths(1.0, 2.0), Strengths(0.0, 0.0)), 2 * (Strengths(1.0, 1.0),)):
        assert recipes(session, _asked(strengths))["command"] == NO_COMMAND
    assert recipes(session, _asked(VECTOR, "Hi", "Hello.", "And?"))["command"] == NO_COMMAND


def test_the_request_is_one_the_shell_passes_on_whole(session: Session, run_folder: Path) -> None:
    def body(strengths: Any) -> Any:
        words = shlex.split(recipes(session, _asked(strengths))["request"], comments=True)
        assert words[0] == "curl" and words[1].startswith("http://127.0.0.1:")
        return json.loads(words[words.index("-d") + 1])

    sent = body(VECTOR)
    assert sent["model"] == "mood@-1.25"
    assert sent["messages"] == [{"role": "user", "content": QUESTION}]
    assert (sent["max_tokens"], sent["temperature"], sent["seed"]) == (12, 0, 4)
    weight = "img-src-x-onerror-window.broken-3-amp"
    assert body((Strengths(0.5, -1.0), Strengths(0.0, 0.0)))["model"] == f"{weight}@m1=0.5,m2=-1.0"
    assert body((Strengths(4.0, 4.0), Strengths(0.0, 0.0)))["model"] == f"{weight}@4.0!"
    both = body((Strengths(0.5, 0.5), Strengths(2.0, 2.0)))
    assert (both["model"], both["vllm_xargs"]) == ("base", {"steer": [f"{weight}@0.5", "mood@2.0"]})
    assert body(OFF)["model"] == "base"
    started = recipes(session, _asked(OFF))["request"].splitlines()[0].removeprefix("# started with: ")
    served = [f"{weight}={run_folder / FOLDER}", f"mood={run_folder / 'mood'}"]
    assert shlex.split(started) == ["easyedit-split", "serve", *served, "--model", "demo"]


def test_the_server_reads_the_request_as_it_was_meant(session: Session) -> None:
    from easyedit_split.serving.catalogue import Catalogue
    from easyedit_split.serving.request import resolve

    lines = recipes(session, _asked(OFF))["request"].splitlines()
    served = Catalogue.read([word for word in shlex.split(lines[0]) if "=" in word])

    def read(*strengths: Strengths) -> list[tuple[int, float, float]]:
        sent = json.loads(shlex.split(recipes(session, _asked(strengths))["request"].splitlines()[1])[-1])
        wanted = sent["model"] if sent["model"] != "base" else sent["vllm_xargs"]["steer"]
        return [(one.artifact, one.m1, one.m2) for one in resolve(served, wanted, prompt_length=5)]

    zero = Strengths(0.0, 0.0)
    assert read(zero, Strengths(-1.25, -1.25)) == [(1, 0.0, -1.25)]
    assert read(Strengths(0.5, -1.0), zero) == [(0, 0.5, -1.0)]
    assert read(Strengths(4.0, 4.0), zero) == [(0, 4.0, 4.0)]  # past the sweep, and meant
    assert read(Strengths(1e-7, 1e-7), Strengths(2, 2)) == [(0, 1e-7, 1e-7), (1, 0.0, 2.0)]
