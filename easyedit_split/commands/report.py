"""`easyedit-split report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import budget_option, calibration_options, keep_strength


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a run (it holds METHOD/sweep.parquet)")
    budget_option(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    calibration_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..run_folder import report_run

    report = report_run(Path(arguments.run_folder), arguments.max_utility_drop, seed=arguments.seed)
    for name, advice in report.advice.items():
        print(f"{name}: {advice}")
    print(f"report: {report.html}\ntables: {report.tables[0].parent}\nfigures: {report.figures[0].parent}")
    return _write(arguments) if arguments.write else 0


def _write(arguments: argparse.Namespace) -> int:
    """Keep, in every change of the run, the strength that its first sweep gives."""
    from ..analysis.pipeline import analyse
    from ..folders import TEST
    from ..sweeps.table import SweepTable
    from ..texts import load_texts

    written = []
    for file in sorted(Path(arguments.run_folder).rglob(TEST)):
        table = SweepTable.load(file)
        found = analyse(table, arguments.max_utility_drop, seed=arguments.seed, texts=load_texts(file, table))
        written.append(keep_strength(file.parent, table, found, str(file)))
    return 0 if all(written) else 1
