"""Changes to EasyEdit: how places are found and edited, branches made, and refusals. Real checkouts: tests/host."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from easyedit_split.easyedit.upstream import __main__ as upstream
from easyedit_split.easyedit.upstream.edit import Refused, Source, edit_lines
from easyedit_split.easyedit.upstream.git import git
from easyedit_split.easyedit.upstream.patch import NotNeeded, Patch
from easyedit_split.easyedit.upstream.patches import PATCHES
from easyedit_split.easyedit.upstream.validate import TESTS, Outcome
from easyedit_split.errors import HostError

CODE = """import os


def f(a):
    # 说
    b = g(a)  # kept
    return b


class C:
    def h(self):
        self.x = [1, 2]
"""


def written(path: Path, text: str = CODE, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", end).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_edits_leave_everything_else_byte_for_byte(tmp_path: Path, end: str) -> None:
    path = written(tmp_path / "m.py", end=end)
    source = Source(tmp_path, "m.py")
    source.replace(source.assignment("b", source.function("f")).value, "k(a)")
    source.before(source.function("f"), "\ndef k(a):\n    return a\n\n\n")
    source.after(source.assignment("self.x"), "self.y = 0\nself.z = 0")
    source.insert(source.one(ast.List, lambda n: True, None, "list").elts[1], ", 3")
    source.save()
    expected = CODE.replace("g(a)", "k(a)").replace("[1, 2]\n", "[1, 2, 3]\n        self.y = 0\n        self.z = 0\n")
    expected = expected.replace("def f", "def k(a):\n    return a\n\n\ndef f")
    assert path.read_bytes() == expected.replace("\n", end).encode()


def test_a_last_line_without_an_end_is_ended(tmp_path: Path) -> None:
    path = written(tmp_path / "m.py", "a = 1")
    source = Source(tmp_path, "m.py")
    source.after(source.assignment("a"), "b = 2")
    source.save()
    assert path.read_text() == "a = 1\nb = 2\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "m.py has 0 of: assignment to nothing in f"), ("c", "m.py has 2 of: assignment to c in f")],
)
def test_a_place_that_is_not_there_once_is_refused(tmp_path: Path, name: str, message: str) -> None:
    path = written(tmp_path / "m.py", CODE.replace("return b", "c = 1\n    c = 2"))
    before = path.read_bytes()
    source = Source(tmp_path, "m.py")
    with pytest.raises(Refused, match=message):
        source.assignment(name, source.function("f"))
    assert path.read_bytes() == before


def test_what_would_be_no_python_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "m.py")
    source = Source(tmp_path, "m.py")
    source.replace(source.assignment("b"), "b = (")
    with pytest.raises(Refused, match="m.py: the change would break it"):
        source.save()
    source = Source(tmp_path, "m.py")
    for text in ("1", "2"):
        source.replace(source.assignment("b").value, text)
    with pytest.raises(Refused, match="two edits of one place"):
        source.save()
    assert path.read_text(encoding="utf-8") == CODE


def test_lines_are_edited_or_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.yaml", "a: 1\nb: 2\n", "\r\n")
    edit_lines(path, lambda lines: [line.replace("1", "3") for line in lines])
    assert path.read_bytes() == b"a: 3\r\nb: 2\r\n"
    with pytest.raises(Refused, match="a.yaml has no line that this change is about"):
        edit_lines(path, lambda lines: lines)
    with pytest.raises(Refused, match="none.yaml does not exist"):
        edit_lines(tmp_path / "none.yaml", lambda lines: lines)


def test_changes_are_numbered_named_and_tested() -> None:
    assert [patch.number for patch in PATCHES] == list(range(1, len(PATCHES) + 1))
    cures = (TESTS / "host" / "cures.py").read_text(encoding="utf-8")
    tests = cures + "".join(path.read_text(encoding="utf-8") for path in (TESTS / "host").glob("*.py"))
    for patch in PATCHES:
        assert patch.cures and all(f"def {name}(" in cures for name in patch.cures), patch.name
        assert patch.defects and all(f"def {name.rpartition('::')[2]}(" in tests for name in patch.defects), patch.name
        assert len(patch.title) <= 72 and not patch.title.endswith(".")


def test_every_change_has_its_page() -> None:
    pages = TESTS.parent / "docs" / "upstream"
    index = (TESTS.parent / "docs" / "upstreaming.md").read_text(encoding="utf-8")
    for patch in PATCHES:
        name = f"{patch.number:02d}-{patch.name}.md"
        text = (pages / name).read_text(encoding="utf-8")
        assert f"# {patch.title}\n" in text and "## Summary" in text and "## Validation" in text
        assert f"upstream/{name}" in index


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "EasyEdit"
    written(root / "steer" / "utils" / "alg_dict.py", "a = 1\n")
    git_user = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], [*git_user, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "unsaved.txt").write_text("mine", encoding="utf-8")
    return root


def change(number: int, text: str | Exception) -> Patch:
    def apply(root: Path) -> None:
        (root / "steer" / f"half{number}.py").write_text("x = 1\n", encoding="utf-8")
        if isinstance(text, Exception):
            raise text
        source = Source(root, "steer/utils/alg_dict.py")
        source.after(source.tree.body[-1], text)
        source.save()

    return Patch(number, f"n{number}", f"Change {number}", "Why.", apply, cures=("test_c",))


def test_each_change_has_a_branch_and_the_working_tree_is_left_alone(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = (change(1, "b = 2"), change(2, Refused("it looks different")), change(3, NotNeeded("it is so")))
    monkeypatch.setattr(upstream, "PATCHES", (*made, change(4, "c = 3")))
    before = git(checkout, "status", "--porcelain"), git(checkout, "rev-parse", "--abbrev-ref", "HEAD")
    assert upstream.main([str(checkout), "--no-validation"]) == 0
    assert (git(checkout, "status", "--porcelain"), git(checkout, "rev-parse", "--abbrev-ref", "HEAD")) == before
    said = capsys.readouterr().out
    assert "02 Change 2: refused: it looks different\n" in said and "03 Change 3: not needed: it is so\n" in said
    branches = git(checkout, "branch", "--format", "%(refname:short)").split()
    assert [b for b in branches if b.startswith("split-")] == ["split-01-n1", "split-04-n4", "split-together"]
    assert git(checkout, "show", "split-04-n4:steer/utils/alg_dict.py") == "a = 1\nc = 3"
    assert git(checkout, "show", "split-together:steer/utils/alg_dict.py") == "a = 1\nb = 2\nc = 3"
    assert "half2" not in git(checkout, "ls-tree", "-r", "--name-only", "split-together")
    assert git(checkout, "log", "--format=%s", "split-together").split("\n")[:2] == ["Change 4", "Change 1"]
    assert len(git(checkout, "worktree", "list").split("\n")) == 1
    assert upstream.main([str(checkout), "--no-validation", "--only", "4"]) == 2
    assert "the branch split-04-n4 exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--only", "99"], "there is no change 99; there are 01, 02"), ([], "holds no folder 'steer' of EasyEdit")],
)
def test_mistakes_are_sentences(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upstream.main([str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_git_says_what_failed(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"git rev-parse failed in .* \(fatal: not a git repository"):
        git(tmp_path, "rev-parse", "HEAD")


def test_a_change_is_good_when_its_tests_turned() -> None:
    patch = Patch(1, "n", "t", "s", lambda root: None, cures=("test_c",), defects=("x.py::test_d",))
    turned = Outcome({"test_c": False, "test_d": True}), Outcome({"test_c": True, "test_d": False})
    assert upstream.Result(patch, "", *turned).good
    for before, after in ((turned[0], turned[0]), (turned[1], turned[1]), (turned[0], Outcome())):
        assert not upstream.Result(patch, "", before, after).good
    assert not upstream.Result(patch, "", turned[0], Outcome({"test_c": True, "test_d": True})).good
