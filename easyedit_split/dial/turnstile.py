"""Who may use the model now: one at a time, first come first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turnstile:
    """A lock whose waiters pass in the order they came, so that nobody who streams keeps the others out."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for its turn; the next in line passes when it ends."""
        ticket = object()
        with self._free:
            self._line.append(ticket)
            self._free.wait_for(lambda: self._line[0] is ticket)
        try:
            yield
        finally:
            with self._free:
                self._line.popleft()
                self._free.notify_all()
