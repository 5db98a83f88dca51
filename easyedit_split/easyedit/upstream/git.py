"""The few things asked of git: a branch of its own for each change, made beside the user's working tree."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import HostError

_AUTHOR = ("-c", "user.name=easyedit-split", "-c", "user.email=easyedit-split@localhost")


def git(root: Path, *arguments: str) -> str:
    """Run git in `root`; returns what it printed.

    Raises:
        HostError: git is missing or failed; its own message.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError(f"git cannot be run in {root} ({error.strerror}); install it, or check the path") from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).split("\n")[-1]
        raise HostError(f"git {arguments[0]} failed in {root} ({reason})")
    return done.stdout.strip()


@contextmanager
def worktree(checkout: Path, *where: str) -> Iterator[Path]:
    """A working tree of the checkout in a temporary folder; `where` is what `git worktree add` takes after the path."""
    with tempfile.TemporaryDirectory(prefix="easyedit-") as folder:
        place = Path(folder) / "EasyEdit"
        options, commit = where[:-1], where[-1]
        git(checkout, "worktree", "add", "--quiet", *options, str(place), commit)
        try:
            yield place
        finally:
            git(checkout, "worktree", "remove", "--force", str(place))


def branch_exists(checkout: Path, name: str) -> bool:
    return bool(git(checkout, "branch", "--list", name))


def delete_branch(checkout: Path, name: str) -> None:
    git(checkout, "branch", "-D", name)


def commit_all(root: Path, message: str) -> None:
    """Commit every change, under the user's name where git knows it."""
    git(root, "add", "--all")
    known = subprocess.run(["git", "config", "user.email"], cwd=root, capture_output=True, check=False).stdout.strip()
    git(root, *(() if known else _AUTHOR), "commit", "--quiet", "--message", message)


def undo_all(root: Path) -> None:
    """Take back every change that is not committed, new files too; for the temporary working trees alone."""
    git(root, "reset", "--quiet", "--hard")
    git(root, "clean", "--quiet", "-fd")
