"""`easyedit-split fit`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError
from .common import budget_option, calibration_options, keep_strength, print_table


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="tables that sweep wrote, or their folders")
    budget_option(parser)
    parser.add_argument("--reduction", choices=("sum", "mean"), help="of the losses (default: as stored)")
    parser.add_argument("--plot", metavar="STEM", help="write STEM.png and STEM.svg")
    calibration_options(parser)
    parser.add_argument(
        "--artifact", metavar="DIR", help="where the change is that --write writes to (default: beside)"
    )


def run(arguments: argparse.Namespace) -> int:
    from ..analysis.budget import budget_said
    from ..analysis.canvas import save_figure
    from ..analysis.names import method_names
    from ..analysis.pipeline import analyse
    from ..analysis.plots import plot_curves
    from ..run_folder import load_sweeps
    from ..texts import load_texts

    analyses, tables, budgets = {}, {}, {}
    for given in arguments.sweeps:
        swept = load_sweeps(given)
        for file, table in swept.items():
            path = given if len(swept) == 1 else str(file)  # a single sweep has the name that was given
            reduced = table.reduced(arguments.reduction or table.reduction)
            tables[path], budgets[path] = table, budget_said(reduced, arguments.max_utility_drop)
            analyses[path] = analyse(reduced, arguments.max_utility_drop, texts=load_texts(file, table))
    for path, found in analyses.items():
        print(f"{path}: {found.n_examples} pairs, nats ({found.reduction}); undefined: {found.undefined}")
        print(f"budget of utility: {budgets[path]}")
        for fit in (found.preference_fit, found.utility_fit):
            if fit is not None:
                print(f"\n{fit.kind}: R2 {fit.r2:.4f}, condition number {fit.condition:.3g}. {fit.message}")
                print_table(
                    ["parameter", "value", "standard error"],
                    [[k, float(v), float(fit.stderr[k])] for k, v in fit.params.items()],
                )
        print("\n" + "\n".join([found.advice, *found.remarks]) + "\n")
    if arguments.plot and len({found.reduction for found in analyses.values()}) > 1:
        raise ConfigError("sums and means are not drawn in one figure: give --reduction")
    if arguments.plot:
        named = method_names({path: found.header for path, found in analyses.items()})
        figure = plot_curves({named[path]: found for path, found in analyses.items()})
        print("figure: " + ", ".join(map(str, save_figure(figure, arguments.plot))))
    if not arguments.write:
        return 0
    folders = {name: Path(arguments.artifact or _folder(name)) for name in tables}
    if len(set(folders.values())) < len(folders):
        raise ConfigError(
            f"{len(tables)} sweeps of one folder ({', '.join(tables)}): name the one to keep a strength of"
        )
    written = [keep_strength(folders[name], tables[name], found, name) for name, found in analyses.items()]
    return 0 if all(written) else 1


def _folder(sweep: str) -> Path:
    return Path(sweep) if Path(sweep).is_dir() else Path(sweep).parent
