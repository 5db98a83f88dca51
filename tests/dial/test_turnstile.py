"""The turnstile lets one through at a time, in the order they came."""

from __future__ import annotations

import threading
import time

import pytest

from easyedit_split.dial.turnstile import Turnstile


def test_first_come_first_served_and_one_at_a_time() -> None:
    turnstile, passed, inside = Turnstile(), [], 0

    def visitor(number: int) -> None:
        nonlocal inside
        with turnstile.turn():
            inside += 1
            assert inside == 1
            passed.append(number)
            time.sleep(0.01)
            inside -= 1

    with turnstile.turn():
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=visitor, args=(number,)))
            threads[-1].start()
            while len(turnstile._line) < number + 2:
                time.sleep(0.001)
        assert passed == []
    for thread in threads:
        thread.join()
    assert passed == [0, 1, 2, 3, 4]


def test_nobody_who_comes_again_and_again_keeps_another_out() -> None:
    turnstile, order = Turnstile(), []

    def visitor(name: str) -> None:
        for _ in range(20):
            with turnstile.turn():
                order.append(name)
                time.sleep(0.001)

    threads = [threading.Thread(target=visitor, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, last = order.index("b"), len(order) - order[::-1].index("a")
    assert "aaa" not in "".join(order[first:last])


def test_an_error_lets_the_next_one_through() -> None:
    turnstile = Turnstile()
    with pytest.raises(ValueError, match="oops"), turnstile.turn():
        raise ValueError("oops")
    with turnstile.turn():
        pass
