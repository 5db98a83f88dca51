"""The paper's tables from results: Markdown, CSV, LaTeX and HTML, the best and the second-best marked.

Table 2: R^2 of the fits to training curves. Table 3: scores of every method and form, and beside it the preference
gained within budgets of utility. Table 5: R^2 of the fits to test curves. Table 6: R^2 on test curves of the fits to
training curves.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..analysis.logodds import nats
from ..analysis.pareto import BUDGETS
from ..analysis.tables import Table
from .aggregate import (
    FIT_COLUMNS,
    OFFLINE,
    TRAINING_FIT_COLUMNS,
    TRANSFER_COLUMNS,
    Key,
    Result,
    Value,
    gain,
    over_seeds,
    score,
    score_columns,
)
from .paper import MODELS as PAPER_MODELS
from .paper import beside

Row = tuple[str, str]  # method, form
LABELS = {"vanilla": "Vanilla", "diffmean": "DiffMean", "sft": "SFT", "reps": "RePS", "split": "SPLIT"}
FORMS = {"": "-", "vector": "Vector", "lora": "LoRA", "local_weight": "Local weight"}
DECIMALS = 2
AT_STRENGTH = {"preference there": "preference", "utility there": "utility"}  # the paper's R2 have the plain names


@dataclass(frozen=True)
class ScoreTable:
    """A table of values: `columns` are (data set, what), rows (method, form). `marked`: best and second in a column."""

    name: str
    title: str
    columns: tuple[tuple[str, str], ...]
    rows: Mapping[Row, tuple[Value | None, ...]]
    marked: bool = True
    model: str = ""
    digits: str = f".{DECIMALS}f"

    def markdown(self) -> str:
        """Mean ± spread over seeds, an interval in brackets; **best**, *second*."""
        wrap = {0: "**{}**", 1: "*{}*", None: "{}"}
        return self._texts(lambda text, place: wrap[place].format(text)).markdown(escape=False)

    def csv(self) -> str:
        """Full precision: mean, spread, seeds, low, high and the paper's values of each column."""
        papers = ["paper"] if self.model in PAPER_MODELS else [f"paper, {label}" for label in PAPER_MODELS.values()]
        parts = ("mean", "spread", "seeds", "low", "high", *papers)
        heads = ["method", "form", *(f"{d} {c} {part}".strip() for d, c in self.columns for part in parts)]
        rows = []
        for (method, form), values in self.rows.items():
            cells: list[str | int | float | None] = [method, form]
            for (dataset, column), v in zip(self.columns, values, strict=True):
                known = beside(self.model, dataset, method, form, column)
                cells += [v.mean, v.spread, v.seeds, v.low, v.high] if v else [None] * 5
                cells += [known.get(name) for name in papers]
            rows.append(tuple(cells))
        return Table(self.name, self.title, tuple(heads), tuple(rows)).csv()

    def latex(self) -> str:
        """A booktabs table; best in bold, second underlined."""
        wrap = {0: r"\textbf{{{}}}", 1: r"\underline{{{}}}", None: "{}"}
        table = self._texts(lambda text, place: wrap[place].format(_tex(text)))
        heads = " & ".join(_tex(c) for c in table.columns)
        body = "\n".join(
            "    " + " & ".join([*map(_tex, map(str, r[:2])), *map(str, r[2:])]) + r" \\" for r in table.rows
        )
        return (
            "\\begin{table}[t]\n  \\centering\n  \\small\n"
            f"  \\caption{{{_tex(self.title)}}}\n  \\label{{tab:{self.name}}}\n"
            f"  \\begin{{tabular}}{{ll{'r' * len(self.columns)}}}\n    \\toprule\n    {heads} \\\\\n    \\midrule\n"
            f"{body}\n    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
        )

    def html(self) -> str:
        """Every text escaped; best in bold, second underlined."""
        wrap = {0: "<b>{}</b>", 1: "<u>{}</u>", None: "{}"}
        table = self._texts(lambda text, place: wrap[place].format(html.escape(text)))
        head = "".join(f"<th>{html.escape(c)}</th>" for c in table.columns)
        rows = [[*(html.escape(str(cell)) for cell in row[:2]), *map(str, row[2:])] for row in table.rows]
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _texts(self, wrap: Callable[[str, int | None], str]) -> Table:
        places = self._places()
        heads = ("Method", "Form", *(f"{d}: {_plain(c)}" if d else _plain(c) for d, c in self.columns))
        rows = []
        for row, values in self.rows.items():
            cells = []
            for i, ((dataset, column), value) in enumerate(zip(self.columns, values, strict=True)):
                text = wrap(shown(value, self.digits), places[i].get(row))
                known = beside(self.model, dataset, *row, column)
                said = "; ".join(f"{name} {number:.{DECIMALS}f}" for name, number in known.items())
                cells.append(f"{text} ({said})" if said else text)
            rows.append((LABELS.get(row[0], row[0]), FORMS.get(row[1], row[1]), *cells))
        return Table(self.name, self.title, heads, tuple(rows))

    def _places(self) -> list[dict[Row, int]]:
        """For each column: the rows that are best (0) and second (1) as shown; equal values share their place."""
        found = []
        for i in range(len(self.columns)):
            means = {row: round(v[i].mean, DECIMALS) for row, v in self.rows.items() if v[i] is not None}  # type: ignore[union-attr]
            ranked = sorted(set(means.values()), reverse=True)[:2] if self.marked and len(means) > 1 else []
            found.append({row: ranked.index(mean) for row, mean in means.items() if mean in ranked})
        return found


def shown(value: Value | None, digits: str = f".{DECIMALS}f") -> str:
    """`1.23 ± 0.04 [1.10, 1.30]`, or a dash where there is no value; each number with `digits`."""
    if value is None:
        return "-"
    text = f"{value.mean:{digits}}"
    if value.spread is not None:
        text += f" ± {value.spread:{digits}}"
    if value.low is not None and value.high is not None:
        text += f" [{value.low:{digits}}, {value.high:{digits}}]"
    return text


def score_tables(groups: Mapping[Key, Sequence[Result]], model: str) -> list[ScoreTable]:
    """Tables 2, 3, the front beside Table 3, 5, 6, the measures without a judge, the strengths, and the training."""
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in groups))
    scores = tuple((d, c) for d in datasets for c in score_columns(d))
    named = {nats(b): b for b in BUDGETS}
    budgets = tuple((d, name) for d in datasets for name in named)
    return [
        _table("table2", "R2 of fits to the training curves (Table 2)", _each(datasets, TRAINING_FIT_COLUMNS), _fit,
               groups, model, drop_vanilla=True, marked=False),
        _table("table3", "Scores at the chosen strength (Table 3)", scores, _score, groups, model),
        _table("table3_front", "Preference gained within budgets of utility, nats (beside Table 3)", budgets,
               lambda results, what: gain(results, named[what]), groups, model, drop_vanilla=True),
        _table("table5", "R2 of fits to the test curves (Table 5)", _each(datasets, FIT_COLUMNS), _fit, groups, model,
               drop_vanilla=True, marked=False),
        _table("table6", "R2 on the test curves of fits to the training curves (Table 6)",
               _each(datasets, TRANSFER_COLUMNS), _fit, groups, model, drop_vanilla=True, marked=False),
        _table("offline", "The same texts without a judge: utility one can see", _each(datasets, OFFLINE), _offline,
               groups, model, marked=False),
        _table("strength", "The chosen strength, and log-odds of the test pairs there (nats, sums)",
               _each(datasets, ("m", *AT_STRENGTH)), _at_strength, groups, model, marked=False),
        _table("training", "What each method was trained with: it has to be equal for a comparison",
               _each(datasets, ("pairs", "epochs", "updates", "lr")), _training, groups, model, drop_vanilla=True,
               marked=False, digits="g"),
    ]  # fmt: skip


def _each(datasets: Sequence[str], columns: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((d, c) for d in datasets for c in columns)


def _table(
    name: str, title: str, columns: tuple[tuple[str, str], ...], read: Callable[[Sequence[Result], str], Value | None],
    groups: Mapping[Key, Sequence[Result]], model: str, *,
    drop_vanilla: bool = False, marked: bool = True, digits: str = f".{DECIMALS}f",
) -> ScoreTable:  # fmt: skip
    rows: dict[Row, tuple[Value | None, ...]] = {}
    for row in dict.fromkeys((method, form) for _, method, form in groups):
        if not (drop_vanilla and row[0] == "vanilla"):
            rows[row] = tuple(read(groups.get((dataset, *row), []), what) for dataset, what in columns)
    return ScoreTable(name, title, columns, rows, marked, model, digits)


def _score(results: Sequence[Result], column: str) -> Value | None:
    return over_seeds(results, lambda r: score(r, column))


def _fit(results: Sequence[Result], column: str) -> Value | None:
    return over_seeds(results, lambda r: r.get("fits", {}).get(column))


def _offline(results: Sequence[Result], column: str) -> Value | None:
    return over_seeds(results, lambda r: r["offline"].get(column))


def _training(results: Sequence[Result], column: str) -> Value | None:
    return over_seeds(results, lambda r: r.get("training", {}).get(column))


def _at_strength(results: Sequence[Result], column: str) -> Value | None:
    return over_seeds(results, lambda r: r["strength"]["m"] if column == "m" else r["at_strength"][AT_STRENGTH[column]])


def _plain(column: str) -> str:
    return column.replace("_", " ")


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#")):
        text = text.replace(plain, escaped)
    return text.replace("±", r"$\pm$").replace("R2", "$R^2$")
