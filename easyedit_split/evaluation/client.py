"""A language model as the judge, through any OpenAI-compatible endpoint.

Temperature 0, a bounded number of requests at once, retries with growing pauses, and a cache keyed by the whole
request. A reply that cannot be read is asked again and then counted as missing, never as 0.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage.reply_cache import ReplyCache, request_key
from .judges import Estimate, JudgeItem, Scores
from .rubrics import SYSTEM, rubric

DEFAULT_MODEL = "gpt-4.1-mini"
# US dollars a million tokens, in and out; list prices of April 2025. Other models: give the prices in the settings.
PRICES = {"gpt-4.1-mini": (0.40, 1.60), "gpt-4.1": (2.00, 8.00), "gpt-4.1-nano": (0.10, 0.40)}
REPLY_TOKENS = 16
LETTERS_A_TOKEN = 4
UNREADABLE, UNREACHABLE = "reply could not be read", "endpoint did not answer"
REFUSED = "endpoint refused the request"
_STOP = {
    401: "the key was refused: set OPENAI_API_KEY",
    403: "the key may not use this model: choose another model or key",
    404: "the endpoint does not know this model or address: check OPENAI_BASE_URL and the model",
}


@dataclass(frozen=True)
class JudgeSettings:
    """Where the judge is and how it is asked.

    `base_url` None: the `openai` client's own default. `timeout` and `pause` in seconds; the pause doubles with each
    of `retries`. `asks`: how often a reply that cannot be read is asked for. `prices`: US dollars a million tokens, in
    and out; None: from `PRICES`, if the model is there.

    Raises:
        ConfigError: a number out of its range, or no key.
    """

    api_key: str
    base_url: str | None = None
    model: str = DEFAULT_MODEL
    concurrency: int = 8
    retries: int = 5
    asks: int = 3
    timeout: float = 60.0
    pause: float = 1.0
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.api_key:
            raise ConfigError("the judge has no key: set OPENAI_API_KEY (any text for a local endpoint)")
        if self.concurrency < 1 or self.asks < 1 or self.retries < 0 or self.timeout <= 0 or self.pause < 0:
            raise ConfigError(
                f"judge settings concurrency={self.concurrency}, asks={self.asks}, retries={self.retries}, "
                f"timeout={self.timeout}, pause={self.pause}: give 1 or more, 1 or more, 0 or more, above 0, 0 or more"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **settings: Any) -> JudgeSettings | None:
        """From OPENAI_API_KEY, OPENAI_BASE_URL and EASYEDIT_SPLIT_JUDGE_MODEL; None without a key."""
        key = environment.get("OPENAI_API_KEY")
        if not key:
            return None
        found = {
            "base_url": environment.get("OPENAI_BASE_URL") or None,
            "model": environment.get("EASYEDIT_SPLIT_JUDGE_MODEL") or DEFAULT_MODEL,
        }
        return cls(key, **{**found, **settings})


class _Refused(Exception):
    """Status 400: this request will never be answered (its text may have met a filter)."""


class ApiJudge:
    """A judge behind a chat-completions endpoint.

    Args:
        cache: a file for replies, or None to keep them in memory only.
        progress: called with 1 as each item is done.

    Raises:
        ConfigError: the package `openai` is missing.
    """

    def __init__(
        self, settings: JudgeSettings, cache: str | Path | None = None, progress: Callable[[int], object] | None = None
    ) -> None:
        if importlib.util.find_spec("openai") is None:
            raise ConfigError("the package 'openai' is missing: pip install 'easyedit-split[judge]'")
        self.settings, self.cache, self.progress = settings, ReplyCache(cache), progress

    @property
    def name(self) -> str:
        return self.settings.model

    def offers(self, rubric: str) -> bool:
        return True

    def estimate(self, items: Sequence[JudgeItem]) -> Estimate:
        """Requests not in the cache, and their price if each is answered at once; four letters count as a token."""
        requests = {request_key(r): r for r in (self._request(_messages(item)) for item in items)}
        fresh = [r for key, r in requests.items() if self.cache.get(key) is None]
        tokens = sum(len(m["content"]) for r in fresh for m in r["messages"]) // LETTERS_A_TOKEN
        prices = self.settings.prices or PRICES.get(self.settings.model)
        out = REPLY_TOKENS * len(fresh)
        dollars = None if prices is None else (tokens * prices[0] + out * prices[1]) / 1e6
        return Estimate(len(fresh), len(requests) - len(fresh), tokens, out, dollars)

    def score(self, items: Sequence[JudgeItem]) -> Scores:
        """A score for each item, in their order, however the endpoint orders its answers.

        Raises:
            ConfigError: the endpoint refuses the key, the model or the address.
        """
        return asyncio.run(self._score(items))

    async def _score(self, items: Sequence[JudgeItem]) -> Scores:
        import openai

        distinct = list(dict.fromkeys(items))
        free = asyncio.Semaphore(self.settings.concurrency)
        async with openai.AsyncOpenAI(
            api_key=self.settings.api_key,
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=0,
        ) as client:
            tasks = [asyncio.ensure_future(self._item(client, free, item)) for item in distinct]
            try:
                found = dict(zip(distinct, await asyncio.gather(*tasks), strict=True))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        outcomes = [found[item] for item in items]
        missing = Counter(o for o in outcomes if isinstance(o, str))
        values = tuple(None if isinstance(o, str) else o for o in outcomes)
        return Scores(values, dict(missing), missing[UNREACHABLE])

    async def _item(self, client: Any, free: asyncio.Semaphore, item: JudgeItem) -> float | str:
        """The score, or why it is missing."""
        wanted = rubric(item.rubric)
        messages = _messages(item)
        outcome: float | str = UNREADABLE
        for _ in range(self.settings.asks):
            try:
                reply = await self._reply(client, free, messages)
            except _Refused:
                outcome = REFUSED
                break
            if reply is None:
                outcome = UNREACHABLE
                break
            value = wanted.parse(reply)
            if value is not None:
                outcome = value
                break
            messages = [
                *messages,
                {"role": "assistant", "content": reply or "(empty)"},
                {"role": "user", "content": wanted.again()},
            ]
        if self.progress:
            self.progress(1)
        return outcome

    async def _reply(self, client: Any, free: asyncio.Semaphore, messages: list[dict[str, str]]) -> str | None:
        """From the cache or the endpoint; None when every retry failed."""
        request = self._request(messages)
        key = request_key(request)
        known = self.cache.get(key)
        if known is not None:
            return known
        for attempt in range(self.settings.retries + 1):
            if attempt:
                await asyncio.sleep(self.settings.pause * 2 ** (attempt - 1))
            async with free:
                reply = await self._ask(client, request)
            if reply is not None:
                self.cache.put(key, reply)
                return reply
        return None

    async def _ask(self, client: Any, request: dict[str, Any]) -> str | None:
        """One request. None: worth a retry.

        The client's own time-out is between bytes; the outer one is for the whole answer.
        """
        import openai

        sent = {k: v for k, v in request.items() if k != "endpoint"}
        try:
            answer = await asyncio.wait_for(client.chat.completions.create(**sent), self.settings.timeout)
            return answer.choices[0].message.content or ""
        except openai.APIStatusError as error:
            if error.status_code in _STOP:
                raise ConfigError(f"judge {self.settings.model!r}: {_STOP[error.status_code]}") from None
            if error.status_code == 400:
                raise _Refused from None
            return None
        except (openai.APIError, TimeoutError, AttributeError, IndexError, TypeError, ValueError):
            return None  # no connection, a stall, or an answer that is not of the API

    def _request(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        return {
            "endpoint": self.settings.base_url or "default",
            "model": self.settings.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }


def _messages(item: JudgeItem) -> list[dict[str, str]]:
    prompt = rubric(item.rubric).prompt(item.question, item.answer, item.concept)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
