"""Figures in the manner of the paper's 2, 4 and 5, from the test sweeps of the first seed and concept.

2: the three forms under one objective. 4: the methods in one form. 5: their fronts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..analysis import Analysis, analyse
from ..analysis.canvas import save_figure
from ..analysis.plots import plot_curves, plot_front
from ..errors import SteeringError
from ..sweeps.table import SweepTable
from .aggregate import Key
from .cell import Task
from .tables import FORMS, LABELS


def write_figures(tasks: Sequence[Task], folder: Path) -> list[tuple[str, Path, Path]]:
    """(caption, png, svg) of every figure that could be drawn."""
    analyses = _analyses(tasks)
    made = []
    for stem, caption, kind, chosen in _wanted(analyses):
        draw = plot_front if kind == "front" else plot_curves
        try:
            figure = draw(chosen, caption)
        except SteeringError:
            continue  # no curve of this figure could be fitted; the tables say which
        made.append((caption, *save_figure(figure, folder / stem)))
    return made


def _analyses(tasks: Sequence[Task]) -> dict[Key, Analysis]:
    found: dict[Key, Analysis] = {}
    for task in tasks:
        key = (task.cell.dataset, task.cell.method, task.cell.form)
        path = task.folder / "sweep_test.parquet"
        if key in found or not path.is_file():
            continue
        try:
            found[key] = analyse(SweepTable.load(path), task.settings.budget, task.settings.n_boot)
        except SteeringError:
            continue
    return found


def _wanted(analyses: Mapping[Key, Analysis]) -> list[tuple[str, str, str, dict[str, Analysis]]]:
    """File name, caption, kind, and label -> analysis of each figure."""
    wanted = []
    for dataset in dict.fromkeys(key[0] for key in analyses):
        for method in dict.fromkeys(key[1] for key in analyses if key[0] == dataset):
            forms = {FORMS.get(f, f): a for (d, m, f), a in analyses.items() if (d, m) == (dataset, method)}
            if len(forms) > 1:
                title = f"{LABELS.get(method, method)} on {dataset}: forms (as Figure 2)"
                wanted.append((f"figure2_{dataset}_{method}", title, "curves", forms))
        for form in dict.fromkeys(key[2] for key in analyses if key[0] == dataset):
            methods = {LABELS.get(m, m): a for (d, m, f), a in analyses.items() if (d, f) == (dataset, form)}
            label = FORMS.get(form, form)
            wanted.append(
                (f"figure4_{dataset}_{form}", f"{label} on {dataset}: methods (as Figure 4)", "curves", methods)
            )
            wanted.append(
                (f"figure5_{dataset}_{form}", f"{label} on {dataset}: fronts (as Figure 5)", "front", methods)
            )
    return wanted
