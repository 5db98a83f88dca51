"""Edit a file of EasyEdit: places found in its syntax tree, our own text put there, the rest left byte for byte."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import HostError
from ...storage.files import write_bytes

Test = Callable[[Any], bool]


class Refused(HostError):
    """A place does not look as a change expects it."""


class Source:
    """A Python file under change. Edits are collected and written by `save`, or not at all."""

    def __init__(self, root: Path, name: str) -> None:
        self.path, self.name = root / name, name
        if not self.path.is_file():
            raise Refused(f"{name} does not exist in this checkout")
        self.data = self.path.read_bytes()
        self.tree = ast.parse(self.data)
        self._starts = [0, *(m.end() for m in re.finditer(rb"\n", self.data))]
        self._edits: list[tuple[int, int, bytes]] = []
        self._newline = b"\r\n" if b"\r\n" in self.data else b"\n"

    def function(self, name: str, within: ast.AST | None = None) -> ast.FunctionDef:
        """The one function or method of that name."""
        found: ast.FunctionDef = self.one(ast.FunctionDef, lambda n: n.name == name, within, f"function {name}")
        return found

    def assignment(self, target: str, within: ast.AST | None = None, test: Test = lambda n: True) -> ast.Assign:
        """The one assignment to a name (or dotted name) of which `test` holds."""
        found: ast.Assign = self.one(
            ast.Assign, lambda n: ast.unparse(n.targets[0]) == target and test(n), within, f"assignment to {target}"
        )
        return found

    def one(self, kind: type, test: Test, within: ast.AST | None, what: str) -> Any:
        """The one node of a kind of which `test` holds; refuses when there are none or several."""
        found = list(self.all(kind, test, within))
        if len(found) != 1:
            place = f" in {within.name}" if isinstance(within, (ast.FunctionDef, ast.ClassDef)) else ""
            raise Refused(f"{self.name} has {len(found)} of: {what}{place}; one was expected, so it is left as it is")
        return found[0]

    def all(self, kind: type, test: Test = lambda n: True, within: ast.AST | None = None) -> Iterator[Any]:
        return (n for n in ast.walk(within or self.tree) if isinstance(n, kind) and test(n))

    def replace(self, node: Any, text: str) -> None:
        """Put `text` in the place of an expression or a statement."""
        self._edits.append((self._at(node), self._at(node, end=True), self._text(text, node.col_offset).lstrip()))

    def before(self, node: ast.stmt, text: str) -> None:
        """Put lines before a statement."""
        start = self._starts[node.lineno - 1]
        self._edits.append((start, start, self._text(text, node.col_offset) + self._newline))

    def after(self, node: ast.stmt, text: str) -> None:
        """Put lines after a statement."""
        line = node.end_lineno or node.lineno
        end = self._starts[line] if line < len(self._starts) else len(self.data)
        broken = b"" if self.data[:end].endswith(b"\n") else self._newline
        self._edits.append((end, end, broken + self._text(text, node.col_offset) + self._newline))

    def insert(self, node: ast.expr, text: str) -> None:
        """Put `text` right behind an expression, on its line."""
        end = self._at(node, end=True)
        self._edits.append((end, end, text.encode()))

    def save(self) -> None:
        """Write the file with all edits made; refuses when the result is no Python.

        Raises:
            Refused: two edits of one place, or what results does not parse.
        """
        data, last = self.data, len(self.data) + 1
        for start, end, text in sorted(self._edits, key=lambda edit: (edit[0], edit[1]), reverse=True):
            if end > last:
                raise Refused(f"{self.name}: two edits of one place")
            data, last = data[:start] + text + data[end:], start
        try:
            ast.parse(data)
        except SyntaxError as error:
            raise Refused(f"{self.name}: the change would break it (line {error.lineno})") from None
        write_bytes(self.path, data)

    def _at(self, node: Any, end: bool = False) -> int:
        line, column = (node.end_lineno, node.end_col_offset) if end else (node.lineno, node.col_offset)
        return self._starts[line - 1] + column

    def _text(self, text: str, indent: int) -> bytes:
        text = textwrap.dedent(text).removeprefix("\n").removesuffix("\n")
        lines = textwrap.indent(text, " " * indent)
        return lines.encode().replace(b"\n", self._newline)


def edit_lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change a text file line by line; line ends are kept as they are.

    Raises:
        Refused: the file is not there, or nothing was changed.
    """
    if not path.is_file():
        raise Refused(f"{path.name} does not exist in this checkout")
    before = path.read_bytes().decode("utf-8").splitlines(keepends=True)
    after = change(list(before))
    if after == before:
        raise Refused(f"{path.name} has no line that this change is about")
    write_bytes(path, "".join(after).encode("utf-8"))
