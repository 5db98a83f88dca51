"""The page over HTTP: its files, and four answers in JSON. Texts come as lines, one a token.

Bound to loopback unless told otherwise. A request must be JSON and name this server as its host, so that another
site's page cannot ask in the visitor's name. The page may load nothing from elsewhere and run no script but its own.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from typing import Any

from .. import __version__, analysis
from ..errors import ConfigError, SteeringError
from ..models.guards import memory_errors_named
from .asked import asked, chosen, text
from .recipes import recipes
from .session import Session

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
OWN = ("index.html", "dial.css", "dial.js", "curves.js", "slider.js", "talk.js")
SHARED = ("page.css", "plotting.js")  # with the report's page
FILES = {
    "/" if name == "index.html" else f"/{name}": files(package) / "page" / name
    for package, names in ((__package__, OWN), (analysis, SHARED))
    for name in names
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
}  # fmt: skip
MOST_BYTES = 1 << 20


class DialServer(ThreadingHTTPServer):
    """Serves `session`; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be bound.
    """

    daemon_threads = True

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0) -> None:
        self.session = session
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"the page cannot be opened at {host}:{port} ({error}): choose another --port") from None

    @property
    def url(self) -> str:
        host = str(self.server_address[0])
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who went away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: DialServer

    def do_GET(self) -> None:
        if not self._known_host():
            return self._json({"error": "this page is not served under that name"}, 403)
        if self.path == "/state":
            return self._json(self._state())
        if self.path not in FILES:
            return self._json({"error": f"there is nothing at {self.path:.80}"}, 404)
        file = FILES[self.path]
        self._send(file.read_bytes(), f"{KINDS[file.name.rpartition('.')[2]]}; charset=utf-8")

    def do_POST(self) -> None:
        routes = {"/answers": self._answers, "/pair": self._pair, "/recipes": self._recipes}
        if not self._known_host() or self.headers.get_content_type() != "application/json":
            return self._json({"error": "a request must be JSON and come from the page itself"}, 403)
        if self.path not in routes:
            return self._json({"error": f"there is nothing at {self.path:.80}"}, 404)
        try:
            with memory_errors_named():
                routes[self.path](self._body())
        except ConnectionError:
            raise
        except Exception as error:  # said to the visitor; what was not foreseen is shown in the terminal too
            self._json({"error": _sentence(error)}, 400 if isinstance(error, SteeringError) else 500)

    def _state(self) -> dict[str, Any]:
        session = self.server.session
        return {
            "version": __version__, "model": session.source,
            "changes": [change.described() for change in session.changes],
        }  # fmt: skip

    def _answers(self, body: Any) -> None:
        session = self.server.session
        steps = session.answers(asked(body, len(session.changes)))
        first = next(steps)  # a mistake is told before the answer begins
        self._head(200, "application/x-ndjson; charset=utf-8")
        try:
            self._line({"texts": first})
            for texts in steps:
                self._line({"texts": texts})
            self._line({"done": True})
        except ConnectionError:
            raise
        except Exception as error:
            self._line({"error": _sentence(error)})
        finally:
            steps.close()

    def _pair(self, body: Any) -> None:
        number = chosen(body, self.server.session.changes)
        self._json(
            self.server.session.score(number, *(text(body, k) for k in ("question", "matching", "not_matching")))
        )

    def _recipes(self, body: Any) -> None:
        self._json(recipes(self.server.session, asked(body, len(self.server.session.changes))))

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            raise ConfigError(f"the request is {length or 'of unknown size'} bytes: send at most {MOST_BYTES}")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise ConfigError("the request is not JSON: reload the page") from None

    def _known_host(self) -> bool:
        """Whether the request names an address of this machine, not a name that someone else points at it."""
        name = self.headers.get("Host", "").rpartition(":")[0].strip("[]")
        if name in ("localhost", self.server.server_address[0]):
            return True
        try:
            return bool(ip_address(name))
        except ValueError:
            return False

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value, allow_nan=False).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self._head(status, kind, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _head(self, status: int, kind: str, more: Iterable[Any] = ()) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, **dict(more)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _line(self, value: Any) -> None:
        self.wfile.write(json.dumps(value).encode() + b"\n")

    def log_message(self, *_: Any) -> None:
        """Nothing is logged: the terminal is for errors."""


def _sentence(error: Exception) -> str:
    if isinstance(error, SteeringError):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}; the terminal says where"
