"""Everything a grid run leaves behind: tables, figures, one page."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import __version__
from ..analysis import html_page
from ..analysis.tables import Table
from ..data.paper_sets import FILES
from ..demo import TASKS
from ..storage.files import write_text
from ..storage.locks import folder_lock
from .aggregate import Result, grouped
from .cell import Task
from .figures import write_figures
from .ranking import place_sentence, place_table
from .results import read_result
from .settings import GridSettings, metrics
from .tables import ScoreTable, score_tables


@dataclass(frozen=True)
class Outputs:
    """The page, the same tables as Markdown, and the other files."""

    page: Path
    markdown: Path
    files: tuple[Path, ...]


def write_outputs(settings: GridSettings, tasks: Sequence[Task], notes: Sequence[str] = ()) -> Outputs:
    """Write `tables/*.md|csv|tex`, `figures/*.png|svg`, `index.html` and `tables.md` from the cells that are done."""
    results = [(task, read_result(task.result_file)) for task in tasks]
    current = [r for task, r in results if r is not None and r["inputs"] == task.inputs]
    groups = grouped(current)
    tables = score_tables(groups, settings.model_label)
    place = place_table(groups)
    lines = [*notes, *_lines(settings, tasks, current), place_sentence(place)]
    lines = [line for line in lines if line]
    folder, files = settings.output, []
    with folder_lock(folder / "tables"), folder_lock(folder / "figures"):
        for table in tables:
            for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
                files.append(write_text(folder / "tables" / f"{table.name}.{suffix}", text))
        files.append(write_text(folder / "tables" / "place.csv", place.csv()))
        figures = write_figures(tasks, folder / "figures")
    files.append(write_text(folder / "settings.json", json.dumps(asdict(settings), indent=1) + "\n"))
    files += [path for _, *paths in figures for path in paths]
    title = f"The comparison on {settings.model_label}"
    markdown = write_text(folder / "tables.md", _markdown(title, lines, tables, place))
    page = write_text(folder / "index.html", _page(title, lines, tables, place, figures))
    return Outputs(page, markdown, tuple(files))


def _lines(settings: GridSettings, tasks: Sequence[Task], results: Sequence[Result]) -> list[str]:
    """What a reader has to know: what is missing, how the strength was chosen, what the numbers cannot say."""
    lines = [
        f"Model {settings.model}, package version {__version__}, {len(results)} of {len(tasks)} cells, "
        f"seeds {', '.join(map(str, settings.seeds))}. Values are means over seeds ± their standard deviation; "
        "[brackets] are 95% bootstrap intervals over test pairs. Best in bold, second marked.",
        "Log-odds are in nats, from losses summed over answer tokens.",
    ]
    rules = Counter(r["strength"]["rule"] for r in results if r["cell"]["method"] != "vanilla")
    lines += [f"Strength, never chosen on test pairs: {rule} ({n} cells)." for rule, n in rules.most_common()]
    lines += _judge_lines(results)
    foreign = sorted({t.cell.dataset for t in tasks} - set(TASKS))
    if settings.model == "demo" and foreign:
        lines.append(
            f"The demo model does not know the language of {', '.join(foreign)}: its scores there mean nothing, "
            "they only show that the command runs."
        )
    if set(FILES) & {t.cell.dataset for t in tasks}:
        lines.append(
            "The paper's own cells stand in parentheses: on 7 and 9 billion parameters, its splits and its judge "
            "(gpt-4.1-mini); a cell of ours on another model is no attempt at the same number."
        )
    return lines


def _judge_lines(results: Sequence[Result]) -> list[str]:
    lines = []
    unjudged = {r["cell"]["dataset"] for r in results if not (r.get("judge") or {}).get("name")}
    without = sorted(name for name in unjudged if metrics(name) != ("accuracy",))
    if without:
        lines.append(
            f"No judge scored {', '.join(without)}: columns that need one are missing (-). "
            "Set OPENAI_API_KEY, and OPENAI_BASE_URL for another endpoint, and run the command again."
        )
    names = sorted({r["judge"]["name"] for r in results if (r.get("judge") or {}).get("name")})
    if names:
        lines.append(f"Judged by: {', '.join(names)}.")
    reasons: Counter[str] = Counter()
    for result in results:
        reasons.update((result.get("judge") or {}).get("reasons", {}))
    lines += [
        f"{n} scores are missing ({reason}); they count neither as 0 nor otherwise." for reason, n in reasons.items()
    ]
    return lines


def _markdown(title: str, lines: Sequence[str], tables: Sequence[ScoreTable], place: Table) -> str:
    parts = [f"# {title}\n", "\n".join(f"- {line}" for line in lines) + "\n"]
    shown: list[ScoreTable | Table] = [*tables, place]
    parts += [f"## {table.title}\n\n{table.markdown()}" for table in shown]
    return "\n".join(parts)


def _page(
    title: str, lines: Sequence[str], tables: Sequence[ScoreTable], place: Table,
    figures: Sequence[tuple[str, Path, Path]],
) -> str:  # fmt: skip
    notes = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    scores = [html_page.section(table.title, table.html()) for table in tables]
    pictures = [html_page.figure(caption, svg) for caption, _, svg in figures]
    return html_page.page(
        title, [f"<ul>{notes}</ul>", *scores, html_page.section(place.title, place.html()), *pictures]
    )
