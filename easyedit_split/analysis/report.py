"""One report a run: a single HTML file that needs no network, the same tables as Markdown and CSV, the figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FitError
from ..storage.files import write_text
from . import plots, tables
from .canvas import save_figure
from .generalisation import Transfer
from .manifold import MeasuredDecay
from .page_data import Method
from .pipeline import Analysis
from .report_page import Picture, report_page
from .tables import Key, Table, escaped
from .text_report import dose_said, measures_of, plot_texts, text_table
from .texts import SweptTexts

OWN_FIGURES = ("curves_", "front_", "manifold_", "texts_")
LONGEST = 120  # letters of a file's name that come from a label: its last ones


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
    """Every table of a report: strengths, comparison (Table 2), fits (5), transfer (6), budgets, parameters, and texts
    where some were measured."""
    found = [tables.strength_table(analyses)]
    if scores:
        found.append(tables.comparison_table(scores))
    found.append(tables.fit_table(analyses))
    if transfers:
        found.append(tables.transfer_table(transfers))
    found += [tables.budget_table(analyses), tables.parameter_table(analyses)]
    read = text_table(analyses)
    return [*found, read] if read.rows else found


def write_report(
    folder: str | Path, analyses: Mapping[Key, Analysis], *, title: str = "Steering report",
    context: Mapping[str, str] | None = None, transfers: Mapping[Key, Transfer] | None = None,
    scores: Mapping[Key, Mapping[str, float]] | None = None,
    manifolds: Mapping[Key, MeasuredDecay] | None = None, more: Sequence[Table] = (),
    means: Mapping[Key, Key] | None = None, names: Mapping[Key, str] | None = None,
    texts: Mapping[Key, SweptTexts] | None = None,
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
        means: key of a sweep's analysis -> key of that of its token means; the two are one method on the page.
        names: what a method is called on the page and in legends, where that is not its label.
        texts: answers along the sweeps of the same keys.
    Raises:
        FitError: there is no analysis.
        ArtifactError: a file cannot be written.
    """
    if not analyses:
        raise FitError("There is no analysis to report; give at least one.")
    base = Path(folder)
    means = means or {}
    swept = {key: one for key, one in analyses.items() if key not in means.values()}
    found = [*report_tables(analyses, transfers, scores), *more]
    stems = file_stems([*analyses, *(manifolds or {})])
    curves = [tables.curve_table(stems[key], one) for key, one in analyses.items()]
    written = [write_text(base / "tables" / f"{table.name}.csv", table.csv()) for table in (*found, *curves)]
    named = {key: (names or {}).get(key, tables.label(key)) for key in {**analyses, **(manifolds or {})}}
    drawn = _drawn(base / "figures", analyses, named, stems)
    other = _manifolds(base / "figures", manifolds or {}, analyses, named, stems)
    read = _text_pictures(base / "figures", swept, named, stems)
    methods = _methods(analyses, means, named, texts or {}, read)
    page = write_text(base / "report.html", report_page(title, context or {}, methods, found, drawn, other))
    figures = [*drawn, *read.values(), *other]
    text = write_text(base / "report.md", _markdown(title, context or {}, analyses, found, figures))
    paths = tuple(path for _, pair in figures for path in pair)
    if (kept := base / "tables" / "texts.csv") not in written:
        kept.unlink(missing_ok=True)
    for left in (base / "figures").glob("*.*"):
        if left not in paths and left.stem.startswith(OWN_FIGURES):
            left.unlink()
    return Report(page, text, tuple(written), paths, {tables.label(key): one.advice for key, one in analyses.items()})


def _methods(
    analyses: Mapping[Key, Analysis],
    means: Mapping[Key, Key],
    named: Mapping[Key, str],
    texts: Mapping[Key, SweptTexts],
    read: Mapping[Key, Picture],
) -> list[Method]:
    """One a sweep: its analysis, and that of its token means beside it."""
    found = []
    for key in (key for key in analyses if key not in means.values()):
        kept = [analyses[key], *([analyses[means[key]]] if key in means else [])]
        by_reduction = {one.reduction: one for one in kept}
        found.append(Method(named[key], tables.label(key), by_reduction, texts.get(key), read.get(key)))
    return found


def _text_pictures(
    folder: Path, analyses: Mapping[Key, Analysis], named: Mapping[Key, str], stems: Mapping[Key, str]
) -> dict[Key, Picture]:
    """What was measured of the texts of each method, where something was."""
    found = {}
    for number, (key, one) in enumerate(analyses.items()):
        measures = measures_of(one)
        if measures is not None:
            caption = (
                f"Texts of {named[key]} over m; dashed: the most that a measure may be; {dose_said(measures, one)}"
            )
            figure = plot_texts(named[key], one, number)
            found[key] = (caption, save_figure(figure, folder / f"texts_{stems[key]}"))
    return found


def _drawn(
    folder: Path, analyses: Mapping[Key, Analysis], named: Mapping[Key, str], stems: Mapping[Key, str]
) -> list[Picture]:
    """(caption, (png, svg)): all methods together, the front, each method alone."""
    made = []
    for reduction in dict.fromkeys(one.reduction for one in analyses.values()):  # sums and means share no axis
        group = {named[key]: one for key, one in analyses.items() if one.reduction == reduction}
        if len(group) > 1:
            caption = f"Preference and utility of every method, reduction={reduction!r}"
            made.append((caption, f"curves_all_{reduction}", plots.plot_curves(group)))
        if any(plots.has_front(one) for one in group.values()):
            caption = f"Preference gained for utility lost, reduction={reduction!r}"
            made.append((caption, f"front_{reduction}", plots.plot_front(group)))
    for key, one in analyses.items():
        caption = f"Preference and utility of {named[key]}; undefined points: {one.undefined}"
        made.append((caption, f"curves_{stems[key]}", plots.plot_curves({named[key]: one})))
    return [(caption, save_figure(figure, folder / stem)) for caption, stem, figure in made]


def _manifolds(
    folder: Path, manifolds: Mapping[Key, MeasuredDecay], analyses: Mapping[Key, Analysis], named: Mapping[Key, str],
    stems: Mapping[Key, str],
) -> list[Picture]:  # fmt: skip
    made = []
    for key, measured in manifolds.items():
        best = analyses[key].recommendation if key in analyses else None
        picture = plots.plot_manifold(measured, named[key], best)
        caption = f"Measured and fitted decay of {named[key]}"
        made.append((caption, save_figure(picture, folder / f"manifold_{stems[key]}")))
    return made


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


def _undefined(one: Analysis) -> str:
    return f"{one.n_examples} examples, reduction={one.reduction!r}; undefined points: {one.undefined}."


def _said(one: Analysis) -> tuple[str, ...]:
    """The advice first, in its own words, then everything else that is to be read of a method."""
    return one.advice, _undefined(one), *one.remarks


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
