"""The report's page: the strength of each method first, then its texts, then curves, then tables.

Everything stands in the page as it is written; the script only adds what can be turned, switched and sorted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from .explained import EXPLAINED, LIMITS
from .html_page import figure, page, section
from .page_data import Method, Picture, page_data
from .pipeline import Analysis
from .plots import has_front
from .reliability import Doubt
from .tables import Table
from .texts import SweptTexts

NO_TEXTS = (
    "No texts are kept with {which}. <code>easyedit-split sweep … --texts 3</code> keeps the answers to the first 3 "
    "test questions at every strength, and they are shown here."
)


def report_page(
    title: str, context: Mapping[str, str], methods: Sequence[Method], tables: Sequence[Table],
    drawn: Sequence[Picture], other: Sequence[Picture],
) -> str:  # fmt: skip
    """The whole page.

    Args:
        drawn: pictures of what the script draws, shown where no script runs. other: pictures shown always.
    """
    colours = range(len(methods))
    parts = [
        '<section id="answer">' + "".join(_answer(m, k) for m, k in zip(methods, colours, strict=True)) + "</section>",
        _texts(methods),
        _curves(drawn),
        _tables(tables, methods),
        *([_pictures(other)] if other else []),
        *([_context(context)] if context else []),
    ]
    return page(title, parts, page_data(list(methods)))


def said(found: Analysis) -> tuple[str, str, tuple[Doubt, ...]]:
    """The advice in three parts: its headline, what else it says, and the conditions that fail."""
    best = found.recommendation
    if best is None or best.m is None:
        return "No strength to recommend", found.advice, ()
    before, strength, rest = found.advice.partition(best.strength)
    if not strength:
        return best.strength, found.advice, best.doubts
    for doubt in best.doubts:
        rest = rest.replace(doubt.sentence, "")
    rest = " ".join(rest.split()).lstrip(":., ")
    return before + strength, rest[:1].upper() + rest[1:], best.doubts


def _answer(method: Method, colour: int) -> str:
    inner = [f'<h2><i class="swatch c{colour % 7}"></i>{escape(method.name)}{_folder(method)}</h2>']
    inner.append(_advice(method.main))
    inner += [
        f"<details><summary>In token {escape(reduction)}s</summary>{_advice(one)}{_notes(one)}</details>"
        for reduction, one in list(method.analyses.items())[1:]
    ]
    inner.append(f"<details><summary>Fits and counts</summary>{_notes(method.main)}</details>")
    return f'<article class="card">{"".join(inner)}</article>'


def _folder(method: Method) -> str:
    return "" if method.folder == method.name else f" <small>{escape(method.folder)}</small>"


def _advice(found: Analysis) -> str:
    headline, rest, doubts = said(found)
    kind = "headline" if found.recommendation and found.recommendation.reliable else "headline doubtful"
    return f'<p class="{kind}">{escape(headline)}</p><p>{escape(rest)}</p>{_warnings(doubts)}'


def _warnings(doubts: Sequence[Doubt]) -> str:
    """Each condition that fails in its own sentence, and below it, when it is opened, what that means."""
    found = []
    for doubt in doubts:
        meaning = EXPLAINED.get(doubt.name)
        found.append(
            f"<details><summary>{escape(doubt.sentence)}</summary><p>{escape(meaning)}</p></details>"
            if meaning
            else f"<p>{escape(doubt.sentence)}</p>"
        )
    return f'<div class="warning">{"".join(found)}</div>' if found else ""


def _notes(found: Analysis) -> str:
    counts = f"{found.n_examples} examples, reduction={found.reduction!r}; undefined points: {found.undefined}."
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in (counts, *found.remarks)) + "</ul>"


def _texts(methods: Sequence[Method]) -> str:
    parts = ["<h2>What it writes</h2>"]
    without = [escape(m.name) for m in methods if m.texts is None]
    if without:
        which = "these sweeps" if len(without) == len(methods) else f"the sweep of {', '.join(without)}"
        parts.append(f'<p class="small">{NO_TEXTS.format(which=which)}</p>')
    for number, method in enumerate(methods):
        if method.texts is not None:
            parts.append(_method_texts(number, method, method.texts))
    return f'<section id="texts" class="card">{"".join(parts)}</section>'


def _method_texts(number: int, method: Method, texts: SweptTexts) -> str:
    columns = text_columns(method.main, texts)
    parts = [f'<h3><i class="swatch c{number % 7}"></i>{escape(method.name)}</h3>']
    asked = [_side_by_side(texts, k, columns) for k in range(len(texts.questions))]
    parts += asked[:1]
    if len(asked) > 1:
        parts.append(f"<details><summary>{len(asked) - 1} more</summary>{''.join(asked[1:])}</details>")
    if method.text_picture is not None:
        caption, (_, svg) = method.text_picture
        unfolded = "" if number else " open"
        parts.append(
            f"<details{unfolded}><summary>Measured at every strength</summary>{figure(caption, svg)}</details>"
        )
    start = columns[-1][1]
    return f'<article class="texts" data-method="{number}" data-row="{start}">{"".join(parts)}</article>'


def _side_by_side(texts: SweptTexts, question: int, columns: Sequence[tuple[str, int, str]]) -> str:
    cards = "".join(
        f'<div class="answer {kind}"><h4>{escape(head)}</h4><div>{escape(texts.answers[row][question])}</div></div>'
        for kind, row, head in columns
    )
    return f'<p class="question">{escape(texts.questions[question])}</p><div class="answers">{cards}</div>'


def text_columns(found: Analysis, texts: SweptTexts) -> list[tuple[str, int, str]]:
    """Kind, row of the texts and headline of what is shown side by side: unsteered, recommended, and too much, which is
    the end of the sweep on the side of the recommended strength. The last one is the one that can be turned."""
    best, columns = found.recommendation, []
    zero = texts.at(0.0)
    if zero is not None:
        columns.append(("plain", zero, "m = 0, unsteered"))
    row = None if best is None or best.m is None else texts.at(best.m)
    if best is not None and row is not None and best.m:
        verdict = "recommended" if best.reliable else "not reliable"
        columns.append(("steered", row, f"m = {best.m:.3g}, {verdict}"))
    side = -1 if best is not None and best.m is not None and best.m < 0 else 1
    end = int(np.argmax(texts.m * side))
    loss = found.measured_at(float(texts.m[end]))[1] if has_front(found) else float("nan")
    spent = best is not None and loss > best.max_utility_drop
    head = f"too much: {loss:.3g} nats of utility lost" if spent else "the end of the sweep"
    return [*columns, ("turned", end, f"m = {texts.m[end]:.3g}, {head}")]


def _curves(drawn: Sequence[Picture]) -> str:
    pictures = "".join(figure(caption, svg) for caption, (_, svg) in drawn)
    return (
        '<section id="curves" class="card"><h2>What it costs</h2><div id="explore"></div>'
        f"<noscript>{pictures}</noscript></section>"
    )


def _tables(tables: Sequence[Table], methods: Sequence[Method]) -> str:
    """The tables; below the first, that of the strengths, what its words mean."""
    known = [one.recommendation for method in methods for one in method.analyses.values() if one.recommendation]
    words: dict[str, str] = {best.limit: LIMITS[best.limit] for best in known}
    words |= {doubt.name: EXPLAINED[doubt.name] for best in known for doubt in best.doubts if doubt.name in EXPLAINED}
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in words.items())
    meant = f"<details><summary>What the words mean</summary><dl>{items}</dl></details>" if words else ""
    shown = [section(t.title, t.html(), "" if number else meant) for number, t in enumerate(tables)]
    return f'<div id="tables">{"".join(shown)}</div>'


def _pictures(pictures: Sequence[Picture]) -> str:
    inner = "".join(figure(caption, svg) for caption, (_, svg) in pictures)
    return f'<section class="card"><h2>Activations</h2><div class="pictures">{inner}</div></section>'


def _context(context: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in context.items())
    return f'<section class="card"><h2>What was run</h2><dl>{items}</dl></section>'
