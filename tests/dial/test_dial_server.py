"""The page over HTTP, on loopback: what it serves, whom it refuses, and visitors who go away."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from typing import Any

import pytest
from nasty import CONCEPT, FOLDER

from easyedit_split import generate
from easyedit_split.dial.server import FILES, KINDS, DialServer
from easyedit_split.errors import ConfigError

TURNS = [{"role": "user", "content": "Write a review of the sofa."}]


def _call(
    server: DialServer, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    known = {"Content-Type": "application/json"} if method == "POST" else {}
    sent = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request(method, path, sent, {**known, **{k.replace("_", "-"): v for k, v in headers.items()}})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, dict(reply.getheaders()), content


def _body(*ms: float, **more: Any) -> dict[str, Any]:
    rows = [{"turns": TURNS, "strengths": [{"m1": 0, "m2": 0}, {"m1": m, "m2": m}]} for m in ms]
    return {"rows": rows, "max_new_tokens": 16, "temperature": 0, "seed": 0, **more}


def test_the_page_loads_nothing_from_elsewhere(server: DialServer) -> None:
    texts = []
    for path, file in FILES.items():
        status, headers, content = _call(server, "GET", path)
        assert status == 200 and headers["Content-Type"].startswith(KINDS[file.name.split(".")[1]])
        assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]
        texts.append(content.decode())
    assert set(re.findall(r"https?://[^\s\"'`]+", "\n".join(texts))) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in "".join(texts) and "insertAdjacentHTML" not in "".join(texts)


def test_the_state_names_the_changes(server: DialServer) -> None:
    state = json.loads(_call(server, "GET", "/state")[2])
    assert [c["name"] for c in state["changes"]] == [FOLDER, "mood"]
    assert state["changes"][1]["concept"] == CONCEPT
    assert state["model"] == "demo"


def test_texts_come_token_by_token_and_are_those_of_generate(server: DialServer, demo: tuple[Any, Any]) -> None:
    status, headers, content = _call(server, "POST", "/answers", _body(0, 2))
    lines = [json.loads(line) for line in content.splitlines()]
    assert status == 200 and lines[-1] == {"done": True}
    steps = [line["texts"] for line in lines[:-1]]
    assert len(steps) == 16 and len(steps[3][0]) < len(steps[-1][0])
    model, tokenizer = demo
    change = server.session.changes[1].artifact
    for k, m in enumerate((0, 2)):
        with change.attach(model, m):
            assert generate(model, tokenizer, [TURNS[0]["content"]], max_new_tokens=16) == [steps[-1][k]]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/answers", b"{", 400, "the request is not JSON"),
        ("/answers", b"[" * 100_000, 400, "the request is not JSON"),
        ("/answers", _body(), 400, "0 rows are asked for"),
        ("/answers", _body(1, temperature=-2), 400, "temperature = -2 is out of range"),
        ("/answers", _body(1, max_new_tokens=2040), 400, "would not fit the model's context of 2048"),
        ("/pair", {"change": 0, "question": "q", "matching": "a", "not_matching": "a"}, 400, "two different answers"),
        ("/pair", {"change": 9, "question": "q", "matching": "a", "not_matching": "b"}, 400, "there are 2"),
        ("/recipes", {}, 400, "rows is None"),
        ("/nowhere", {}, 404, "there is nothing at /nowhere"),
    ],
)
def test_a_mistake_is_the_packages_own_sentence(
    server: DialServer, path: str, body: Any, status: int, said: str
) -> None:
    found, _, content = _call(server, "POST", path, body)
    assert found == status and said in json.loads(content)["error"]


def test_a_request_that_is_too_large_is_not_read(server: DialServer) -> None:
    found, _, content = _call(server, "POST", "/answers", b"", Content_Length=str(1 << 30))
    assert found == 400 and "send at most 1048576" in json.loads(content)["error"]


def test_another_sites_page_is_refused(server: DialServer) -> None:
    """A form or a script of another site sends no JSON without asking first; a name pointed here is no address."""
    body = json.dumps(_body(1)).encode()
    assert _call(server, "POST", "/answers", body, Content_Type="text/plain")[0] == 403
    assert _call(server, "POST", "/answers", body, Host="evil.example:80")[0] == 403
    assert _call(server, "GET", "/state", Host="evil.example")[0] == 403
    assert _call(server, "OPTIONS", "/answers")[0] == 501
    port = server.server_address[1]
    for name in ("localhost", "127.0.0.1", "[::1]"):
        assert _call(server, "GET", "/state", Host=f"{name}:{port}")[0] == 200, name


def test_files_outside_the_page_are_not_served(server: DialServer) -> None:
    for path in ("/../server.py", "/page/dial.js", "/%2e%2e/server.py", "//etc/passwd", "/dial.js/.."):
        assert _call(server, "GET", path)[0] == 404


def test_a_visitor_who_hangs_up_frees_the_model(server: DialServer, capfd: pytest.CaptureFixture[str]) -> None:
    body = json.dumps(_body(1, max_new_tokens=1500)).encode()
    request = (
        f"POST /answers HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(server.server_address[:2]) as visitor:
        visitor.sendall(request.encode() + body)
        visitor.recv(4096)
        assert server.session.answering == 1
    deadline = time.monotonic() + 10
    while server.session.answering and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.session.answering == 0
    assert "Traceback" not in capfd.readouterr().err


def test_what_was_not_foreseen_is_told_too(
    server: DialServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("oops")

    monkeypatch.setattr(server.session, "score", broken)
    found, _, content = _call(
        server, "POST", "/pair", {"change": 0, "question": "q", "matching": "a", "not_matching": "b"}
    )
    assert found == 500 and json.loads(content)["error"] == "ValueError: oops; the terminal says where"
    assert "in broken" in capfd.readouterr().err


def test_a_port_in_use_is_one_sentence(server: DialServer) -> None:
    with pytest.raises(ConfigError, match="cannot be opened at 127.0.0.1:.* choose another --port"):
        DialServer(server.session, port=server.server_address[1])
