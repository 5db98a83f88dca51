"""Replies of a judge or a model on disk: one line each, appended the moment it arrives, keyed by the whole request."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..errors import ArtifactError


def request_key(request: dict[str, Any]) -> str:
    """SHA-256 of a request as canonical JSON: model, endpoint, messages and settings, nothing left out."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ReplyCache:
    """A JSON Lines file of replies. Several processes may append to it. A line cut short by a kill is ignored.

    Raises:
        ArtifactError: the file cannot be read or written.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = Path(path) if path else None
        self._replies: dict[str, str] = {}
        if self.path is not None:
            self._load(self.path)

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> str | None:
        return self._replies.get(key)

    def put(self, key: str, reply: str) -> None:
        """Keep a reply, on disk before this returns."""
        self._replies[key] = reply
        if self.path is None:
            return
        # a line break in front, so that a line cut short before cannot swallow this one
        line = "\n" + json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line.encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArtifactError(
                f"{self.path} cannot be written ({error.strerror}): free space, or name another file"
            ) from None

    def _load(self, path: Path) -> None:
        try:
            if not next(p for p in path.absolute().parents if p.exists()).is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error.strerror}): name another cache file") from error
        for line in data.split(b"\n"):  # text has other line breaks, which a reply may hold
            try:
                entry = json.loads(line.decode("utf-8", "replace"))
                self._replies[entry["key"]] = str(entry["reply"])
            except (ValueError, KeyError, TypeError):
                continue
