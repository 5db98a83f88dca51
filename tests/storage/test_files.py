"""Whole-or-not writes on systems that lack what Linux has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from easyedit_split.storage.files import write_text


def test_where_folders_cannot_be_opened_files_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    real = os.open

    def opened(path: Any, *rest: Any, **options: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.delattr(os, "O_DIRECTORY")
    assert write_text(tmp_path / "a.txt", "whole").read_text() == "whole"
