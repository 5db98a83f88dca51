"""What makes pairs bad to train on or to measure with, found in their text alone.

A pair should differ in the concept and in nothing else. A cue of the surface (length, a full stop, a label) that tells
which answer is wanted is learned instead of the concept, and leads an evaluation astray in the same way.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .pairs import PreferencePair, pairs_from_rows

if TYPE_CHECKING:
    from .tokens import Encoder

TELLING = 0.75  # share of pairs in which a cue alone finds the wanted answer
CHANCE = 0.01  # probability that a cue without meaning is as one-sided
UNEVEN = 3.0  # times as long
FEW = 40  # characters: shorter answers differ in length for no reason
LEAST = 20  # characters of a question or an answer that count as copied
_WORDS = re.compile(r"\w+")
_LABEL = re.compile(r"[\s(\[]*([A-Ha-h]|[1-9]|yes|no|true|false)(?=[\s).:\],!]|$)", re.IGNORECASE)
CUES: dict[str, Callable[[str], bool]] = {
    "begins with a capital": lambda text: text.lstrip()[:1].isupper(),
    "ends with a full stop": lambda text: text.rstrip()[-1:] in ".!?",
    "has several lines": lambda text: "\n" in text.strip(),
    "has a list": lambda text: bool(re.search(r"(?m)^\s*([-*•]|\d+[.)])\s", text)),
    "has bold or headings": lambda text: "**" in text or bool(re.search(r"(?m)^#+\s", text)),
    "has a code block": lambda text: "```" in text,
    "has quotation marks": lambda text: any(mark in text for mark in '"“”'),
    "has a question mark": lambda text: "?" in text,
    "has an exclamation mark": lambda text: "!" in text,
    "begins with a space": lambda text: text[:1].isspace(),
    "ends with a space": lambda text: text[-1:].isspace(),
}


@dataclass(frozen=True)
class Finding:
    """Something wrong: `check` names it, `rows` are the pairs (from 0) it is seen in, `remedy` says what to do.

    `detail` says more of the whole, as a share; empty where the rows say all.
    """

    check: str
    rows: tuple[int, ...]
    remedy: str
    detail: str = ""


def readable_pairs(
    rows: Sequence[tuple[str, Mapping[str, Any]]], source: str
) -> tuple[list[PreferencePair], list[int], list[Finding]]:
    """Pairs of the rows that can be read, the number of each one's row, and a finding for every other row.

    Raises:
        DataError: no rows, or none that can be read.
    """
    pairs, numbers, findings = [], [], []
    last: DataError | None = None
    for number, row in enumerate(rows):
        try:
            pairs += pairs_from_rows([row], source)
            numbers.append(number)
        except DataError as error:
            last = error
            findings.append(Finding("unreadable", (number,), "mend or drop the row", _reason(error, source)))
    if not pairs:
        raise last or DataError(f"{source} holds no rows: give a file with at least one pair")
    return pairs, numbers, findings


def lint(pairs: Sequence[PreferencePair], training: Sequence[PreferencePair] = ()) -> list[Finding]:
    """Every finding in the text of `pairs`; of test pairs also what they share with `training`."""
    found = [
        _duplicates(pairs),
        _contradictions(pairs),
        _near_equal(pairs),
        _uneven(pairs),
        _copied_questions(pairs),
        _given_away(pairs),
        _in_training(pairs, training),
        *_telling_cues(pairs),
        _label_balance(pairs),
    ]
    return [finding for finding in found if finding is not None]


def lint_tokens(pairs: Sequence[PreferencePair], encoder: Encoder, context: int | None) -> list[Finding]:
    """Pairs that do not fit the model's context of `context` tokens, and those whose answers have the same tokens."""
    long, same, most = [], [], 0
    for i, pair in enumerate(pairs):
        try:
            length = len(encoder.pair(pair))
        except DataError:
            same.append(i)
            continue
        most = max(most, length)
        if context is not None and length > context:
            long.append(i)
    found = [
        _finding("longer than the context", long, "shorten or drop them", f"up to {most} tokens, context {context}"),
        _finding("no tokens to tell apart", same, "give two different answers and a question"),
    ]
    return [finding for finding in found if finding is not None]


def lint_losses(
    matching: Sequence[float], not_matching: Sequence[float], tokens: Sequence[float], words: int, won: float = 20.0
) -> list[Finding]:
    """Pairs that a model has nothing to learn from.

    Args:
        matching, not_matching: summed losses in nats of the two answers, unsteered. tokens: of the matching answer.
        words: size of the vocabulary. won: nats of preference from which on a pair counts as won.
    """
    already = [i for i, (p, n) in enumerate(zip(matching, not_matching, strict=True)) if n - p >= won]
    hopeless = [i for i, (p, t) in enumerate(zip(matching, tokens, strict=True)) if p > t * math.log(words)]
    found = [
        _finding("already won", already, "harder pairs teach more", f"by {won:g} nats or more, unsteered"),
        _finding(
            "hopeless", hopeless, "check that the answer is text of the model's kind",
            "the wanted answer is less likely than tokens drawn at random",
        ),
    ]  # fmt: skip
    return [finding for finding in found if finding is not None]


def _duplicates(pairs: Sequence[PreferencePair]) -> Finding | None:
    return _finding("duplicate", _repeated(map(_whole, pairs)), "keep one of each")


def _contradictions(pairs: Sequence[PreferencePair]) -> Finding | None:
    known = {_whole(pair) for pair in pairs}
    rows = [i for i, pair in enumerate(pairs) if _whole(pair.swapped()) in known]
    return _finding("contradicts another pair", rows, "decide which answer is wanted")


def _near_equal(pairs: Sequence[PreferencePair]) -> Finding | None:
    rows = [i for i, p in enumerate(pairs) if _plain(p.matching) and _plain(p.matching) == _plain(p.not_matching)]
    return _finding("near-equal answers", rows, "they differ in case, spaces or signs only: give another answer")


def _uneven(pairs: Sequence[PreferencePair]) -> Finding | None:
    rows = []
    for i, pair in enumerate(pairs):
        short, long = sorted((len(pair.matching.strip()), len(pair.not_matching.strip())))
        if long >= UNEVEN * short and long - short >= FEW:
            rows.append(i)
    return _finding("uneven lengths", rows, f"one answer is {UNEVEN:g} times as long: bring them near each other")


def _copied_questions(pairs: Sequence[PreferencePair]) -> Finding | None:
    rows = []
    for i, pair in enumerate(pairs):
        question = _plain(pair.question)
        if len(question) >= LEAST and any(question in _plain(a) for a in (pair.matching, pair.not_matching)):
            rows.append(i)
    return _finding("answer repeats the question", rows, "leave the question out of the answer")


def _given_away(pairs: Sequence[PreferencePair]) -> Finding | None:
    """One of the answers stands in the question, the other does not: copying tells them apart."""
    rows = []
    for i, pair in enumerate(pairs):
        question = _plain(pair.question)
        inside = [len(_plain(a)) >= LEAST and _plain(a) in question for a in (pair.matching, pair.not_matching)]
        if inside[0] != inside[1]:
            rows.append(i)
    return _finding("question gives an answer away", rows, "leave the answer out of the question, or name both")


def _in_training(pairs: Sequence[PreferencePair], training: Sequence[PreferencePair]) -> Finding | None:
    known = {(_plain(p.question), _plain(a)) for p in training for a in (p.matching, p.not_matching)}
    rows = [
        i for i, p in enumerate(pairs)
        if any((_plain(p.question), _plain(a)) in known for a in (p.matching, p.not_matching))
    ]  # fmt: skip
    return _finding("seen in training", rows, "drop them from one of the two files")


def _telling_cues(pairs: Sequence[PreferencePair]) -> list[Finding | None]:
    """Cues of the surface that alone find the wanted answer in three of four pairs, and not by chance."""
    measures: dict[str, Callable[[str], float]] = {"is longer": lambda text: len(text.strip()), **CUES}
    found = []
    for name, measure in measures.items():
        sides = [_side(measure(pair.matching), measure(pair.not_matching)) for pair in pairs]
        wanted, other = sides.count(1), sides.count(-1)
        side = 1 if wanted >= other else -1
        share = (max(wanted, other) + sides.count(0) / 2) / len(pairs)
        if share >= TELLING and _by_chance(max(wanted, other), wanted + other) < CHANCE:
            rows = [i for i, s in enumerate(sides) if s == side]
            which = "wanted" if side == 1 else "other"
            detail = f"in {len(rows)} of {len(pairs)} pairs, the reverse in {min(wanted, other)}"
            found.append(_finding(f"the {which} answer {name}", rows, "even the answers out in this", detail))
    return found


def _label_balance(pairs: Sequence[PreferencePair]) -> Finding | None:
    """Answers that begin with a label, of which one is mostly the wanted one."""
    labels = [[match and match.group(1).lower() for match in map(_LABEL.match, (p.matching, p.not_matching))]
              for p in pairs]  # fmt: skip
    both = [i for i, (a, b) in enumerate(labels) if a and b and a != b]
    if not both:
        return None
    label, count = Counter(labels[i][0] for i in both).most_common(1)[0]
    seen = sum(label in labels[i] for i in both)
    if count / seen < TELLING or _by_chance(count, seen) >= CHANCE:
        return None
    rows = [i for i in both if labels[i][0] == label]
    detail = f"{str(label).upper()!r} is the wanted label in {count} of the {seen} pairs that have it"
    return _finding("unbalanced labels", rows, "swap the labels in half of the pairs", detail)


def _side(wanted: float, other: float) -> int:
    return (wanted > other) - (wanted < other)


def _by_chance(most: int, of: int) -> float:
    """Probability that of `of` fair coins at least `most` fall on one side, either side."""
    return min(1.0, 2 * sum(math.comb(of, k) for k in range(most, of + 1)) / 2**of)


def _finding(check: str, rows: Sequence[int], remedy: str, detail: str = "") -> Finding | None:
    return Finding(check, tuple(rows), remedy, detail) if rows else None


def _repeated(keys: Iterable[Any]) -> list[int]:
    """Places of what was there before."""
    seen: set[Any] = set()
    return [i for i, key in enumerate(keys) if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _whole(pair: PreferencePair) -> tuple[str, str, str]:
    return tuple(" ".join(text.split()) for text in (pair.question, pair.matching, pair.not_matching))  # type: ignore


def _plain(text: str) -> str:
    """Words alone, in small letters."""
    return " ".join(_WORDS.findall(text.casefold()))


def _reason(error: DataError, source: str) -> str:
    return str(error).removeprefix(f"{source}, ")
