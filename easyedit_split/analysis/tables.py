"""Tables in the shape of the paper's Tables 2, 5 and 6, and what a report needs besides, as Markdown, CSV, HTML.

A row belongs to a key: a label, or a (method, form) pair, which takes two columns.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import DataError
from .fitted_curves import parameter_names
from .generalisation import Transfer
from .pipeline import Analysis
from .recommend import Recommendation
from .result import FitResult

Key = str | tuple[str, str]
Cell = str | int | float | None
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A titled table. Cells keep their full precision; it is shortened where people read them."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self, escape: bool = True) -> str:
        """A Markdown table with padded columns, so that it reads well in a terminal too.

        Args:
            escape: show texts as they are; False where they hold markup on purpose.
        """
        cells = [[_in_markdown(cell, escape) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.columns))]
        numeric = [self._numeric(i) for i in range(len(self.columns))]
        rule = [("-" * (w - 1) + ":") if right else "-" * w for w, right in zip(widths, numeric, strict=True)]
        lines = [
            "| "
            + " | ".join(
                cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, numeric, strict=True)
            )
            + " |"
            for row in (cells[0], rule, *cells[1:])
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Comma-separated values with full precision; undefined numbers are ``nan``, absent ones empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if cell is None else cell for cell in row] for row in self.rows])
        return out.getvalue()

    def html(self) -> str:
        """An HTML table; every text is escaped."""
        kinds = ["number" if self._numeric(i) else "text" for i in range(len(self.columns))]
        head = "".join(
            f'<th class="{kind}">{html.escape(name)}</th>' for name, kind in zip(self.columns, kinds, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(
                f'<td class="{"text" if isinstance(cell, str) else "number"}">{html.escape(_shown(cell))}</td>'
                for cell in row
            )
            + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _numeric(self, column: int) -> bool:
        return bool(self.rows) and not any(isinstance(row[column], str) for row in self.rows)


def escaped(text: str) -> str:
    """A text as Markdown shows it, on one line: nothing in it is markup. An underscore inside a word is none anyway."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*\[\]<>|$~&#])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", lambda m: f"\\{m[0]}", line)


def _in_markdown(cell: Cell, escape: bool) -> str:
    return escaped(cell) if escape and isinstance(cell, str) else _shown(cell).replace("|", "\\|")


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, (int, np.integer)):
        return str(cell)
    return "n/a" if np.isnan(cell) else f"{cell:.4g}"


def _headed(
    name: str, title: str, columns: Sequence[str], rows: Mapping[Key, Sequence[Cell]], first: str = "Method"
) -> Table:
    """A table whose first columns are the keys of ``rows``."""
    paired = any(isinstance(key, tuple) for key in rows)
    head = (first, "Form") if paired else (first,)
    body = tuple((*_key_cells(key, paired), *cells) for key, cells in rows.items())
    return Table(name, title, (*head, *columns), body)


def _key_cells(key: Key, paired: bool) -> tuple[Cell, ...]:
    cells = key if isinstance(key, tuple) else (key,)
    return cells if len(cells) == 2 or not paired else (cells[0], None)


def label(key: Key) -> str:
    """A key in one string, for a legend or a file name."""
    return key if isinstance(key, str) else " ".join(key)


def comparison_table(scores: Mapping[Key, Mapping[str, float]]) -> Table:
    """Table 2: one row a method and form, one column a score. A score that a row lacks stays empty.

    Raises:
        DataError: there is no score.
    """
    columns = tuple(dict.fromkeys(name for row in scores.values() for name in row))
    if not columns:
        raise DataError("There is no score to compare; give at least one method with one score.")
    rows = {key: tuple(row.get(name) for name in columns) for key, row in scores.items()}
    return _headed("comparison", "Scores of each method and form (paper, Table 2)", columns, rows)


def fit_table(analyses: Mapping[Key, Analysis]) -> Table:
    """Table 5: R^2 of both fits on the points they were fitted to, with errors and counts of undefined points."""
    columns = (
        "R2 preference", "R2 utility", "adj. R2 preference", "adj. R2 utility",
        "RMSE preference", "RMSE utility", "reduction", "points", "undefined preference", "undefined utility",
    )  # fmt: skip
    rows: dict[Key, tuple[Cell, ...]] = {}
    for key, found in analyses.items():
        fits = (found.preference_fit, found.utility_fit)
        numbers = [_of(fit, name) for name in ("r2", "adjusted_r2", "rmse") for fit in fits]
        undefined = [f"{curve.n_undefined} of {curve.n_points}" for curve in (found.preference, found.utility)]
        rows[key] = (*numbers, found.reduction, len(found.preference.m), *undefined)
    return _headed("fit", "Fit of the law to the measured curves (paper, Table 5)", columns, rows)


def _of(fit: FitResult | None, name: str) -> float:
    return float("nan") if fit is None else float(getattr(fit, name))


def transfer_table(transfers: Mapping[Key, Transfer]) -> Table:
    """Table 6: R^2 of the fits of the training split, on that split and on the test split."""
    columns = (
        "preference, train", "preference, test", "utility, train", "utility, test",
        "undefined utility, train", "undefined utility, test",
    )  # fmt: skip
    rows = {
        key: (
            found.preference_train, found.preference_test, found.utility_train, found.utility_test,
            found.undefined_train, found.undefined_test,
        )
        for key, found in transfers.items()
    }  # fmt: skip
    return _headed("transfer", "R2 of the training fit on both splits (paper, Table 6)", columns, rows)


def strength_table(analyses: Mapping[Key, Analysis]) -> Table:
    """The recommended strength of each method, with its interval, and the gain and the loss measured at it."""
    columns = (
        "m", "low", "high", "gain", "gain low", "gain high", "loss", "loss low", "loss high", "budget", "limit",
        "reliable", "conditions that fail",
    )  # fmt: skip
    rows: dict[Key, tuple[Cell, ...]] = {}
    for key, found in analyses.items():
        best = found.recommendation
        if best is None or best.m is None:
            rows[key] = (None,) * 10 + ("no fit" if best is None else best.limit, "no", _failing(best))
            continue
        ends: list[Cell] = [end for span in (best.gain_interval, best.drop_interval) for end in span or (None, None)]
        if not best.measured:
            ends = [None] * 4
        rows[key] = (
            best.m, *(best.interval or (None, None)), *(best.preference_gain if best.measured else None, *ends[:2]),
            *(best.utility_drop if best.measured else None, *ends[2:]),
            best.max_utility_drop, best.limit, "yes" if best.reliable else "no", _failing(best),
        )  # fmt: skip
    title = (
        "Recommended strength, the gain measured there against m = 0 and the loss from m = 0 or from the highest "
        "utility on the way, nats, 95% intervals"
    )
    return _headed("strength", title, columns, rows)


def _failing(best: Recommendation | None) -> str:
    return "" if best is None else ", ".join(dict.fromkeys(doubt.name for doubt in best.doubts))


def budget_table(analyses: Mapping[Key, Analysis]) -> Table:
    """The strength recommended within each budget of utility, with the gain and the loss measured there."""
    budgets = next(iter(analyses.values())).budgets
    columns = [f"{what} {budget:g}" for budget in budgets for what in ("m at", "gain at", "loss at")]
    rows: dict[Key, tuple[Cell, ...]] = {}
    for key, found in analyses.items():
        cells: list[Cell] = []
        for step in found.front or (None,) * len(budgets):
            known = step is not None and step.m is not None and step.measured
            cells += [step.m, step.preference_gain, step.utility_drop] if step and known else [None, None, None]
        rows[key] = tuple(cells)
    return _headed("budgets", "Gain in preference within a loss of utility, as measured, nats", columns, rows)


def parameter_table(analyses: Mapping[Key, Analysis]) -> Table:
    """Parameters of every fit with their standard errors, and the condition number of their covariance."""
    names = parameter_names("preference")
    rows: list[tuple[Cell, ...]] = []
    paired = any(isinstance(key, tuple) for key in analyses)
    for key, found in analyses.items():
        for fit in (found.preference_fit, found.utility_fit):
            if fit is None:
                continue
            values = [_with_error(fit, name) for name in names]
            rows.append((*_key_cells(key, paired), fit.kind, *values, float(fit.condition)))
    head = ("Method", "Form") if paired else ("Method",)
    title = "Parameters of the law, with standard errors; 'bound' marks the end of the search range"
    return Table("parameters", title, (*head, "curve", *names, "condition"), tuple(rows))


def _with_error(fit: FitResult, name: str) -> Cell:
    if name not in fit.params or np.isnan(fit.params[name]):
        return "-"
    value, error = fit.params[name], fit.stderr[name]
    if name in fit.at_bound:
        return f"{value:.4g} (bound)"
    return f"{value:.4g} ± {error:.2g}"


def curve_table(name: str, found: Analysis) -> Table:
    """The measured curves with intervals, the fitted values and the undefined counts, one row a strength."""
    columns = ("m",) + tuple(
        f"{kind} {what}"
        for kind in ("preference", "utility")
        for what in ("mean", "low", "high", "fitted", "undefined")
    )
    sides = (
        (found.preference, found.preference_interval, found.preference_fit),
        (found.utility, found.utility_interval, found.utility_fit),
    )
    rows = []
    for i, m in enumerate(found.preference.m):
        cells: list[Cell] = [float(m)]
        for curve, interval, fit in sides:
            fitted = float("nan") if fit is None else float(fit.predict(m))
            cells += [float(curve.mean[i]), *map(float, interval[i]), fitted, int(curve.undefined[i])]
        rows.append(tuple(cells))
    return Table(f"curves_{name}", f"Curves of {name}", columns, tuple(rows))
