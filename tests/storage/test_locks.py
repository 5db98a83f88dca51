"""Locks where there are none: nobody's half-written file is taken away."""

from __future__ import annotations

import builtins
import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from easyedit_split.storage.locks import folder_lock


def _without_fcntl(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **options: Any) -> Any:
        if name == "fcntl":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)


def _without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.parametrize("lack", [_without_fcntl, _without_locks])
def test_without_locks_another_writers_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: Any) -> None:
    theirs = tmp_path / ".layer_1.safetensors.ab12_cd3.part"
    theirs.write_text("half")
    lack(monkeypatch)
    with folder_lock(tmp_path), folder_lock(tmp_path):  # nobody is kept out
        assert theirs.read_text() == "half"
    monkeypatch.undo()
    with folder_lock(tmp_path):
        assert not theirs.exists()
