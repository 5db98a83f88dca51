"""`easyedit-split fit`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import print_table


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="tables that sweep wrote, or their folders")
    parser.add_argument("--max-utility-drop", type=float, default=1.0, metavar="NATS", help="budget (default: 1)")
    parser.add_argument("--reduction", choices=("sum", "mean"), help="of the losses (default: as stored)")
    parser.add_argument("--plot", metavar="STEM", help="write STEM.png and STEM.svg")


def run(arguments: argparse.Namespace) -> int:
    from ..analysis.pipeline import analyse
    from ..analysis.plots import plot_curves, save_figure
    from ..run_folder import TEST
    from ..sweeps.table import SweepTable

    analyses = {}
    for path in arguments.sweeps:
        table = SweepTable.load(Path(path) / TEST if Path(path).is_dir() else path)
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
