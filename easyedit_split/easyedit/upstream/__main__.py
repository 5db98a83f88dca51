"""`python -m easyedit_split.easyedit.upstream CHECKOUT [--only NN]`: each change on a branch of its own, and tested."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import HostError, SteeringError
from ..registration import is_checkout
from .edit import Refused
from .git import branch_exists, commit_all, delete_branch, git, undo_all, worktree
from .patch import NotNeeded, Patch
from .patches import PATCHES
from .validate import Outcome, run_tests

TOGETHER = "split-together"


@dataclass
class Result:
    """A row of the table."""

    patch: Patch
    applied: str
    before: Outcome
    after: Outcome
    branched: bool = True

    @property
    def lines(self) -> list[str]:
        head = f"{self.patch.number:02d} {self.patch.title}: {self.applied}"
        lines = [head]
        if not self.branched:
            return lines
        for kind, tests in (("defect", self.patch.defects), ("cure", self.patch.cures)):
            for test in map(_name, tests):
                if test in self.before.held or test in self.after.held:
                    states = [_state(outcome.held.get(test)) for outcome in (self.before, self.after)]
                    lines.append(f"   {kind} {test}: {states[0]} -> {states[1]}")
        for key in {**self.before.measured, **self.after.measured}:
            values = [outcome.measured.get(key, "-") for outcome in (self.before, self.after)]
            lines.append(f"   {key[1]}: {values[0]} -> {values[1]}")
        return lines

    @property
    def good(self) -> bool:
        """Whether every cure holds now and did not before, and every defect the other way round."""
        after, before = self.after.held, self.before.held
        cured = all(after.get(_name(t), True) and not before.get(_name(t), False) for t in self.patch.cures)
        gone = all(before.get(_name(t), True) and not after.get(_name(t), False) for t in self.patch.defects)
        return cured and gone and bool(after)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _options().parse_args(argv)
    try:
        return _run(arguments.checkout.resolve(), _chosen(arguments.only), not arguments.no_validation)
    except SteeringError as error:
        print(f"upstream: {error}", file=sys.stderr)
        return 2


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("easyedit_split.easyedit.upstream", description=__doc__)
    parser.add_argument("checkout", type=Path, help="a clone of EasyEdit; its working tree is left alone")
    parser.add_argument("--only", action="append", type=int, metavar="NN", help="the change of that number; repeatable")
    parser.add_argument("--no-validation", action="store_true", help="make the branches and run no tests")
    return parser


def _chosen(numbers: Sequence[int] | None) -> list[Patch]:
    known = {patch.number: patch for patch in PATCHES}
    unknown = [n for n in numbers or () if n not in known]
    if unknown:
        raise HostError(f"there is no change {unknown[0]}; there are {', '.join(f'{n:02d}' for n in known)}")
    return [known[n] for n in sorted(numbers or known)]


def _run(checkout: Path, patches: list[Patch], validate: bool) -> int:
    if not is_checkout(checkout):
        raise HostError(f"{checkout} holds no folder 'steer' of EasyEdit; give a clone of it")
    base = git(checkout, "rev-parse", "HEAD")
    taken = [name for name in (*(p.branch for p in patches), TOGETHER) if branch_exists(checkout, name)]
    if taken:
        raise HostError(f"the branch {taken[0]} exists in {checkout}; delete it with 'git branch -D {taken[0]}'")
    before = _before(checkout, base, patches) if validate else Outcome()
    good = True
    for patch in patches:
        result = _one(checkout, base, patch, before.of([_name(t) for t in _tests(patch)]), validate)
        print("\n".join(result.lines), flush=True)
        good = good and (not validate or not result.branched or result.good)
    if len(patches) > 1:
        good = _together(checkout, base, patches, validate) and good
    return 0 if good else 1


def _before(checkout: Path, base: str, patches: list[Patch]) -> Outcome:
    with worktree(checkout, "--detach", base) as root:
        return run_tests(root, [test for patch in patches for test in _tests(patch)])


def _one(checkout: Path, base: str, patch: Patch, before: Outcome, validate: bool) -> Result:
    try:
        with worktree(checkout, "-b", patch.branch, base) as root:
            patch.apply(root)
            commit_all(root, patch.message)
            after = run_tests(root, _tests(patch)) if validate else Outcome()
    except (Refused, NotNeeded) as error:
        delete_branch(checkout, patch.branch)
        kind = "not needed" if isinstance(error, NotNeeded) else "refused"
        return Result(patch, f"{kind}: {error}", before, Outcome(), branched=False)
    return Result(patch, f"branch {patch.branch}", before, after)


def _together(checkout: Path, base: str, patches: list[Patch], validate: bool) -> bool:
    """All of them on one branch, a commit each, in their order."""
    with worktree(checkout, "-b", TOGETHER, base) as root:
        made = []
        for patch in patches:
            try:
                patch.apply(root)
            except (Refused, NotNeeded) as error:
                print(f"{patch.number:02d} is left out: {error}")
                undo_all(root)  # what it had edited before it refused
                continue
            commit_all(root, patch.message)
            made.append(patch)
        print(f"all together: branch {TOGETHER}, {len(made)} changes", flush=True)
        if not validate:
            return True
        cures = [f"cures.py::{test}" for patch in made for test in patch.cures]
        outcome = run_tests(root, [*cures, "together.py"])
    for test, held in outcome.held.items():
        print(f"   {test}: {_state(held)}")
    for (_, what), value in outcome.measured.items():
        print(f"   {what}: {value}")
    return all(outcome.held.values())


def _tests(patch: Patch) -> list[str]:
    named = [test if "::" in test else f"defects.py::{test}" for test in patch.defects]
    return [*named, *(f"cures.py::{test}" for test in patch.cures)]


def _name(test: str) -> str:
    return test.rpartition("::")[2]


def _state(held: bool | None) -> str:
    return {True: "holds", False: "fails", None: "skipped"}[held]


if __name__ == "__main__":
    raise SystemExit(main())
