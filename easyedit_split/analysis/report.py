"""One report a run: a single HTML file that needs no network, the same tables as Markdown and CSV, the figures."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FitError
from ..storage.files import write_text
from . import plots, tables
from .generalisation import Transfer
from .manifold import MeasuredDecay
from .pipeline import Analysis
from .tables import Key, Table, escaped

OWN_FIGURES = ("curves_", "front_", "manifold_")
LONGEST = 120  # letters of a file's name that come from a label: its last ones
STYLE = "\n".join(
    (
        "body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }",
        "body { color: #1c1c1c; background: #fff; }",
        "h1 { font-size: 1.5rem; }",
        "h2 { font-size: 1.15rem; margin-top: 2.2rem; }",
        "figure { margin: 1rem 0; }",
        "img { max-width: 46rem; width: 100%; }",
        "figcaption, .small { color: #555; font-size: 0.9rem; }",
        ".wide { overflow-x: auto; }",
        "table { border-collapse: collapse; margin: 0.6rem 0; font-size: 0.88rem; }",
        "th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; white-space: nowrap; text-align: left; }",
        "td.number { text-align: right; font-variant-numeric: tabular-nums; }",
    )
)


@dataclass(frozen=True)
class Report:
    """Where a report was written: ``html``, ``markdown``, and the CSV tables and figures beside them.

    ``advice``: which strength to use, by method.
    """

    html: Path
    markdown: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    advice: Mapping[str, str]


def report_tables(
    analyses: Mapping[Key, Analysis], transfers: Mapping[Key, Transfer] | None = None,
    scores: Mapping[Key, Mapping[str, float]] | None = None,
) -> list[Table]:  # fmt: skip
    """Every table of a report: strengths, comparison (Table 2), fits (5), transfer (6), budgets, parameters."""
    found = [tables.strength_table(analyses)]
    if scores:
        found.append(tables.comparison_table(scores))
    found.append(tables.fit_table(analyses))
    if transfers:
        found.append(tables.transfer_table(transfers))
    return [*found, tables.budget_table(analyses), tables.parameter_table(analyses)]


def write_report(
    folder: str | Path, analyses: Mapping[Key, Analysis], *, title: str = "Steering report",
    context: Mapping[str, str] | None = None, transfers: Mapping[Key, Transfer] | None = None,
    scores: Mapping[Key, Mapping[str, float]] | None = None,
    manifolds: Mapping[Key, MeasuredDecay] | None = None, more: Sequence[Table] = (),
) -> Report:  # fmt: skip
    """Write ``report.html``, ``report.md``, ``tables/*.csv`` and ``figures/*.png|svg`` into a folder.

    Args:
        folder: made when missing; files of an earlier report are replaced.
        analyses: label, or (method, form), -> analysis of its sweep.
        context: what was run, shown at the top (model, data, configuration, commit, seed).
        transfers: results of ``transfer`` for the same keys.
        scores: scores of generated text by name, for the comparison.
        manifolds: results of ``measured_decay``.
        more: further tables, shown last.
    Raises:
        FitError: there is no analysis.
        ArtifactError: a file cannot be written.
    """
    if not analyses:
        raise FitError("There is no analysis to report; give at least one.")
    base = Path(folder)
    found = [*report_tables(analyses, transfers, scores), *more]
    stems = file_stems([*analyses, *(manifolds or {})])
    curves = [tables.curve_table(stems[key], one) for key, one in analyses.items()]
    written = [write_text(base / "tables" / f"{table.name}.csv", table.csv()) for table in (*found, *curves)]
    figures = _figures(base / "figures", analyses, manifolds or {}, stems)
    page = write_text(base / "report.html", _html(title, context or {}, analyses, found, figures))
    text = write_text(base / "report.md", _markdown(title, context or {}, analyses, found, figures))
    paths = tuple(path for _, pair in figures for path in pair)
    for left in (base / "figures").glob("*.*"):
        if left not in paths and left.stem.startswith(OWN_FIGURES):
            left.unlink()
    return Report(page, text, tuple(written), paths, {tables.label(key): one.advice for key, one in analyses.items()})


def _figures(
    folder: Path, analyses: Mapping[Key, Analysis], manifolds: Mapping[Key, MeasuredDecay], stems: Mapping[Key, str]
) -> list[tuple[str, tuple[Path, Path]]]:
    """(caption, (png, svg)) of every figure: all methods together, the front, each method alone, the manifolds."""
    named = {tables.label(key): one for key, one in analyses.items()}
    made = []
    for reduction in dict.fromkeys(one.reduction for one in named.values()):  # sums and means share no axis
        group = {name: one for name, one in named.items() if one.reduction == reduction}
        if len(group) > 1:
            caption = f"Preference and utility of every method, reduction={reduction!r}"
            made.append((caption, f"curves_all_{reduction}", plots.plot_curves(group)))
        if any(one.recommendation is not None and one.recommendation.measured for one in group.values()):
            caption = f"Preference gained for utility lost, reduction={reduction!r}"
            made.append((caption, f"front_{reduction}", plots.plot_front(group)))
    for key, one in analyses.items():
        name = tables.label(key)
        caption = f"Preference and utility of {name}; undefined points: {one.undefined}"
        made.append((caption, f"curves_{stems[key]}", plots.plot_curves({name: one})))
    for key, measured in manifolds.items():
        caption = f"Measured and fitted decay of {tables.label(key)}"
        made.append((caption, f"manifold_{stems[key]}", plots.plot_manifold(measured)))
    return [(caption, plots.save_figure(figure, folder / stem)) for caption, stem, figure in made]


def file_stems(keys: Sequence[Key]) -> dict[Key, str]:
    """A stem of a file name for each key: its label, other characters as `_`, and a number where two would be one."""
    found: dict[Key, str] = {}
    taken = {f"all_{reduction}" for reduction in ("sum", "mean")}  # figures of all methods together
    for key in dict.fromkeys(keys):
        plain = stem = re.sub(r"[^A-Za-z0-9._-]+", "_", tables.label(key))[-LONGEST:]
        number = 2
        while stem.lower() in taken:  # some file systems do not tell cases apart
            stem, number = f"{plain}-{number}", number + 1
        taken.add(stem.lower())
        found[key] = stem
    return found


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML page that needs no network; `parts` are its pieces of HTML, below the title."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join((f"<h1>{html.escape(title)}</h1>", *parts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def figure(caption: str, svg: Path) -> str:
    """A figure as a piece of HTML, the picture in it."""
    data = base64.b64encode(svg.read_bytes()).decode("ascii")
    text = html.escape(caption)
    image = f'<img alt="{text}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def section(title: str, table: str) -> str:
    """A table, in HTML, below its title."""
    return f'<h2>{html.escape(title)}</h2><div class="wide">{table}</div>'


def _undefined(one: Analysis) -> str:
    return f"{one.n_examples} examples, reduction={one.reduction!r}; undefined points: {one.undefined}."


def _said(one: Analysis) -> tuple[str, ...]:
    """The advice first, in its own words, then everything else that is to be read of a method."""
    return one.advice, _undefined(one), *one.remarks


def _html(
    title: str, context: Mapping[str, str], analyses: Mapping[Key, Analysis], found: list[Table],
    figures: list[tuple[str, tuple[Path, Path]]],
) -> str:  # fmt: skip
    parts = []
    if context:
        items = "<br>".join(f"{html.escape(k)}: {html.escape(str(v))}" for k, v in context.items())
        parts.append(f'<p class="small">{items}</p>')
    for key, one in analyses.items():
        lines = "".join(f"<li>{html.escape(note)}</li>" for note in _said(one))
        parts.append(f"<h2>{html.escape(tables.label(key))}</h2><ul>{lines}</ul>")
    parts += [figure(caption, svg) for caption, (_, svg) in figures]
    return page(title, [*parts, *(section(table.title, table.html()) for table in found)])


def _markdown(
    title: str, context: Mapping[str, str], analyses: Mapping[Key, Analysis], found: list[Table],
    figures: list[tuple[str, tuple[Path, Path]]],
) -> str:  # fmt: skip
    parts = [f"# {escaped(title)}\n"]
    if context:
        parts.append("\n".join(f"- {escaped(name)}: {escaped(str(value))}" for name, value in context.items()) + "\n")
    for key, one in analyses.items():
        lines = "\n".join(f"- {note}" for note in _said(one))
        parts.append(f"## {escaped(tables.label(key))}\n\n{lines}\n")
    parts += [f"## {table.title}\n\n{table.markdown()}" for table in found]
    parts += [f"![{escaped(caption)}](figures/{png.name})\n" for caption, (png, _) in figures]
    return "\n".join(parts)
