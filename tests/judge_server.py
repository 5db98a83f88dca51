"""A chat-completions server on the loopback address whose every answer a test decides."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What to send: `text` as the reply, or `body` as it stands; after `delay` seconds."""

    text: str = ""
    status: int = 200
    delay: float = 0.0
    body: bytes | None = None


@dataclass
class Server:
    """The running server: its address, the requests it got, and how many it had open at once at most."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    most_open: int = 0

    def last_messages(self) -> list[str]:
        return [r["messages"][-1]["content"] for r in self.requests]


@contextmanager
def judge_server(decide: Callable[[dict[str, Any], int], Answer]) -> Iterator[Server]:
    """Serve until the block ends. `decide(request, n)` answers a request; n counts earlier ones with these messages."""
    lock = threading.Lock()
    state = Server("")
    open_now = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal open_now
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                earlier = sum(r["messages"] == request["messages"] for r in state.requests)
                state.requests.append(request)
                open_now += 1
                state.most_open = max(state.most_open, open_now)
            answer = decide(request, earlier)
            time.sleep(answer.delay)
            with lock:
                open_now -= 1
            self._send(answer, request["model"])

        def _send(self, answer: Answer, model: str) -> None:
            body = answer.body if answer.body is not None else _completion(answer, model)
            try:
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up waiting, as it should

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    state.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(answer: Answer, model: str) -> bytes:
    if answer.status != 200:
        return json.dumps({"error": {"message": answer.text or "no", "type": "test", "code": None}}).encode()
    message = {"role": "assistant", "content": answer.text}
    whole = {
        "id": "x", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip
    return json.dumps(whole).encode()
