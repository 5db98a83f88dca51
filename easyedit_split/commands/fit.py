"""`easyedit-split fit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .common import print_table

if TYPE_CHECKING:
    from ..sweeps.table import SweepTable


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="tables that sweep wrote, or their folders")
    parser.add_argument("--max-utility-drop", type=float, default=1.0, metavar="NATS", help="budget (default: 1)")
    parser.add_argument("--reduction", choices=("sum", "mean"), help="of the losses (default: as stored)")
    parser.add_argument("--plot", metavar="STEM", help="write STEM.png and STEM.svg")


def run(arguments: argparse.Namespace) -> int:
    from ..analysis.pipeline import analyse
    from ..analysis.plots import plot_curves, save_figure
    from ..run_folder import load_sweeps

    analyses = {}
    tables = {name: table for given in arguments.sweeps for name, table in _named(given, load_sweeps(given)).items()}
    for path, table in tables.items():
        analyses[path] = analyse(table.reduced(arguments.reduction or table.reduction), arguments.max_utility_drop)
    for path, found in analyses.items():
        print(f"{path}: {found.n_examples} pairs, nats ({found.reduction}); undefined: {found.undefined}")
        for fit in (found.preference_fit, found.utility_fit):
            if fit is not None:
                print(f"\n{fit.kind}: R2 {fit.r2:.4f}, condition number {fit.condition:.3g}. {fit.message}")
                print_table(
                    ["parameter", "value", "standard error"],
                    [[k, float(v), float(fit.stderr[k])] for k, v in fit.params.items()],
                )
        print("\n" + "\n".join([found.advice, *found.remarks]) + "\n")
    if arguments.plot:
        print("figure: " + ", ".join(map(str, save_figure(plot_curves(analyses), arguments.plot))))
    return 0


def _named(given: str, tables: dict[Path, SweepTable]) -> dict[str, SweepTable]:
    """A single sweep has the name that was given."""
    return {given if len(tables) == 1 else str(file): table for file, table in tables.items()}
