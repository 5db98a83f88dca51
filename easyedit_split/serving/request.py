"""What a request may ask for: `NAME`, `NAME@2.0` or `NAME@m1=1,m2=0.5`, one or a list of them; checked, never repaired.

The same text is a model's name in the API and the value of `steer` in `vllm_xargs` (`SamplingParams.extra_args`).
Without a strength the artifact's recommended one is used. A strength past what was swept is refused, unless the text
ends with `!`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, nearest
from .catalogue import Catalogue, Served

FIELD = "steer"
RESOLVED = "steer.resolved"  # written by the server only
LARGEST = 3.4e38  # strengths are float32 in the engine
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SHOWN = 80


@dataclass(frozen=True)
class Steered:
    """One change of a request: the artifact's place in the catalogue and its digest, its strengths, and the first
    position (0 is the prompt's first token) that it acts on."""

    artifact: int
    digest: str
    m1: float
    m2: float
    start: int

    def packed(self) -> list[Any]:
        """As plain data, for vLLM's messages between processes."""
        return [self.artifact, self.digest, self.m1, self.m2, self.start]


def resolve(catalogue: Catalogue, asked: Any, prompt_length: int) -> list[Steered]:
    """The changes that `asked` (a text or a list of them) means for a prompt of so many tokens.

    A change whose terms are all at strength 0 is left out: such a request is the unsteered one.

    Raises:
        ConfigError: one sentence that says what is wrong and what to write instead.
    """
    texts = [asked] if isinstance(asked, str) else asked
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"{FIELD} is {_shown(asked)}: give a text such as {_example(catalogue)!r}, or a list of such texts"
        )
    if len(texts) > len(catalogue.entries):
        raise ConfigError(
            f"{FIELD} names {len(texts)} changes, but {len(catalogue.entries)} are served: name each once"
        )
    found, seen = [], set()
    for text in texts:
        place, served, m1, m2 = _parsed(catalogue, text)
        if place in seen:
            raise ConfigError(f"{FIELD} names {served.name!r} twice: name it once, with one strength")
        seen.add(place)
        change = _change(place, served, m1, m2, prompt_length)
        if change.m1 or change.m2:
            found.append(change)
    return found


def is_asked(key: object) -> bool:
    """Whether an extra argument's name looks like a wish to be steered."""
    return isinstance(key, str) and key.lower().startswith(FIELD)


def check_fields(extra: dict[Any, Any]) -> None:
    """Raise `ConfigError` for a field that looks like `steer` and is not: it would go unsteered."""
    for key in extra:
        if is_asked(key) and key not in (FIELD, RESOLVED):
            raise ConfigError(f"the field {_shown(key)} is unknown: steering is asked for as {FIELD!r}")


def _parsed(catalogue: Catalogue, text: str) -> tuple[int, Served, float, float]:
    name, at, rest = text.partition("@")
    found = catalogue.find(name)
    if found is None:
        raise ConfigError(f"no artifact named {_shown(name)} is served{nearest(name[:_SHOWN], catalogue.names)}")
    place, served = found
    if not at:
        if served.recommended is None:
            raise ConfigError(
                f"{name!r} has no recommended strength, as neither it nor a sweep beside it has a reliable one: "
                f"say one, as {name + '@1'!r}"
            )
        return place, served, served.recommended, served.recommended
    further = rest.endswith("!")
    m1, m2 = _strengths(name, rest.removesuffix("!"))
    if served.swept and not further:
        low, high = served.swept
        for m in (m1, m2):
            if m and not low <= m <= high:
                raise ConfigError(
                    f"strength {m:g} of {name!r} is past what was swept ({low:g} to {high:g}): "
                    f"choose one within, or write {f'{name}@{rest}!'!r} if you mean it"
                )
    return place, served, m1, m2


def _strengths(name: str, text: str) -> tuple[float, float]:
    if "=" not in text:
        m = _number(name, text)
        return m, m
    values: dict[str, float] = {}
    for part in text.split(","):
        key, _, number = part.partition("=")
        if key not in ("m1", "m2") or key in values:
            raise ConfigError(f"{_shown(text)} is no strength of {name!r}: write m1=NUMBER,m2=NUMBER, each once")
        values[key] = _number(name, number)
    return values.get("m1", 0.0), values.get("m2", 0.0)


def _number(name: str, text: str) -> float:
    value = float(text) if len(text) <= _SHOWN and _NUMBER.fullmatch(text) else math.nan
    if not abs(value) <= LARGEST:
        raise ConfigError(f"strength {_shown(text)} of {name!r} is no finite number: write one, as {name + '@2.0'!r}")
    return value


def _change(place: int, served: Served, m1: float, m2: float, prompt_length: int) -> Steered:
    start = {"all": 0, "answer": prompt_length - 1, "after_prefix": served.prefix}[served.rule]
    has_weight, has_bias = served.form != "vector", served.form != "lora"
    return Steered(place, served.digest, m1 if has_weight else 0.0, m2 if has_bias else 0.0, start)


def _example(catalogue: Catalogue) -> str:
    return f"{catalogue.names[0]}@2.0"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
