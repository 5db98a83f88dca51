"""A hub on the loopback address: as much of the Hugging Face hub's protocol as pushing and reading a change takes.

Repositories are kept in memory, every commit whole. Files named `*.safetensors` and `*.png` go through Git LFS, as they
do there. `requests` keeps what was asked for, so that a test can see what was fetched and what was not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LARGE = re.compile(r".*\.(safetensors|png)")


@dataclass
class Repository:
    """Its commits, the oldest first: number of a commit -> file -> content."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        content = repr(sorted(files.items())) + str(len(self.commits))
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        return sha

    def at(self, revision: str) -> str | None:
        """The commit that a revision means."""
        return list(self.commits)[-1] if revision == "main" else revision if revision in self.commits else None


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refused: str = ""  # what the hub says to every card, if it takes none

    def add(self, name: str, files: dict[str, bytes]) -> str:
        return self.repositories.setdefault(name, Repository()).commit(files)

    def files(self, name: str) -> dict[str, bytes]:
        return list(self.repositories[name].commits.values())[-1]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self._path()
        for pattern, answer in (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", self._commit),
        ):
            if found := re.fullmatch(pattern, path):
                return answer(body, *found.groups())
        return self._send(404, {"error": f"no {path}"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.large[hashlib.sha256(content).hexdigest()] = content
        self._path()
        self._send(200, {})

    def do_GET(self) -> None:
        path = self._path()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._listing(*found.groups(), tree=False)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            return self._listing(found.group(1), "main", tree=False)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            return self._listing(*found.groups(), tree=True)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*found.groups())
        return self._send(404, {"error": f"no {path}"})

    do_HEAD = do_GET

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(f"{self.command} {path}")
        return path

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.state.repositories
        private = bool(asked.get("private") or asked.get("visibility") == "private")
        repository = self.state.repositories.setdefault(name, Repository(private))
        if not known:
            repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._send(409 if known else 200, {"url": f"{self.state.url}/{name}", "error": "it is there" if known else ""})

    def _validate(self, body: bytes) -> None:
        head = json.loads(body)["content"].split("---")[1]
        wrong = self.state.refused or ("" if isinstance(yaml.safe_load(head), dict) else "no mapping")
        errors = [{"message": wrong}] if wrong else []
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        if name not in self.state.repositories:
            return self._missing("RepoNotFound")
        files = [
            {"path": f["path"], "uploadMode": "lfs" if LARGE.fullmatch(f["path"]) else "regular", "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]
        return self._send(200, {"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.state.url}/lfs/{o['oid']}"}}}
            for o in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self.state.repositories[name]
        files = dict(self.state.files(name))
        for line in body.splitlines():
            action = json.loads(line)
            value = action["value"]
            if action["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif action["key"] == "lfsFile":
                files[value["path"]] = self.state.large[value["oid"]]
            elif action["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files)
        self._send(200, {"commitUrl": f"{self.state.url}/{name}/commit/{sha}", "commitOid": sha, "hookOutput": ""})

    def _listing(self, name: str, revision: str, tree: bool) -> None:
        repository = self.state.repositories.get(name)
        if repository is None:
            return self._missing("RepoNotFound")
        sha = repository.at(revision)
        if sha is None:
            return self._missing("RevisionNotFound")
        files = repository.commits[sha]
        if not tree:
            siblings = [{"rfilename": path} for path in files]
            return self._send(200, {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []})
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in files.items()
        ]
        return self._send(200, entries)

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self.state.repositories.get(name)
        sha = repository.at(revision) if repository else None
        if repository is None or sha is None or path not in repository.commits[sha]:
            return self._missing("EntryNotFound" if sha else "RepoNotFound")
        content = repository.commits[sha][path]
        about = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self._send(200, content, about)

    def _missing(self, code: str) -> None:
        self._send(404, {"error": code}, {"X-Error-Code": code})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
