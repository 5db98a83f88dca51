"""What every judge offers: a price before it starts, then a score or a missing value for each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class JudgeItem:
    """One thing to score: `answer` to `question`, under the rubric of that name; `concept` where it asks for one."""

    rubric: str
    question: str
    answer: str
    concept: str | None = None


@dataclass(frozen=True)
class Estimate:
    """What scoring will cost at most-likely length: requests still to be sent, those whose reply is kept from before,
    tokens, US dollars (None: unknown). Items that ask the same are one request."""

    requests: int
    cached: int
    tokens_in: int
    tokens_out: int
    dollars: float | None

    def __str__(self) -> str:
        price = "price unknown" if self.dollars is None else f"about {self.dollars:.2f} US dollars"
        if not self.requests and not self.cached:
            return "no requests to send"
        kept = f" ({self.cached} more are answered already)" if self.cached else ""
        return f"{self.requests} requests to send{kept}, {self.tokens_in} tokens in, {price}"


@dataclass(frozen=True)
class Scores:
    """A score for each item, None where it is missing, and why: reason -> how many items.

    `unreachable` counts the items that a later run can still get (the endpoint failed); replies that could not be
    read are final.
    """

    values: tuple[float | None, ...]
    missing: dict[str, int]
    unreachable: int = 0


class Judge(Protocol):
    """`name` says who judges and is part of what a cached result depends on."""

    @property
    def name(self) -> str: ...
    def offers(self, rubric: str) -> bool: ...
    def estimate(self, items: Sequence[JudgeItem]) -> Estimate: ...
    def score(self, items: Sequence[JudgeItem]) -> Scores: ...
