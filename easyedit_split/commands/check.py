"""`easyedit-split check`."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ConfigError, FitError
from .common import (
    WHERE,
    any_model_option,
    budget_option,
    data,
    hparams_options,
    load,
    load_artifact,
    print_table,
    settings,
)
from .import_ import source_options

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact
    from ..settings.hyperparameters import Hyperparameters

POINTS = 17  # strengths, where none is given and none kept
ON_THE_WAY = 5  # strengths from 0 to the one that is asked about


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vector", metavar="VECTOR", help=f"a change ({WHERE}), or a file that import reads")
    parser.add_argument("--pairs", required=True, metavar="FILE", help="pairs to measure it on")
    parser.add_argument("-m", type=float, metavar="M", help="strength (default: the one it keeps, else the best one)")
    parser.add_argument("--gain", type=float, default=1.0, metavar="NATS", help="preference to be gained (default: 1)")
    budget_option(parser)
    source_options(parser)
    any_model_option(parser)
    parser.epilog = "Exit status: 0 where the gain is reached within the budget, 1 where it is not, 2 for a mistake."
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ..analysis.budget import in_unit_of
    from ..analysis.logodds import beside, nats
    from ..analysis.pipeline import analyse
    from ..sweeps.factors import sweep_factors
    from ..sweeps.run import sweep

    hp = settings(arguments)
    if not math.isfinite(arguments.gain):
        raise ConfigError(f"--gain {arguments.gain} is not finite: give a number of nats")
    pairs = data(replace(hp, test_data=arguments.pairs), "test_data")
    artifact = _change(arguments, hp)
    model, tokenizer = load(hp)
    artifact.resolve_all(model)
    kept = artifact.calibration
    if kept and not kept.reliable and arguments.m is None:
        print(f"note: the strength that the change keeps ({kept}) is not reliable, so strengths are swept")
    given = arguments.m if arguments.m is not None else kept.m if kept and kept.reliable else None
    factors = (
        np.linspace(0.0, given, ON_THE_WAY) if given  # utility may be higher on the way, and is lost from there
        else np.zeros(1) if given is not None
        else sweep_factors(model, tokenizer, pairs, artifact, POINTS)
    )  # fmt: skip
    table = sweep(model, tokenizer, pairs, artifact, factors, hp.reduction, progress=True)
    budget = in_unit_of(table, arguments.max_utility_drop)
    found = analyse(table, budget, n_boot=1)
    unknown = [float(m) for m in factors if np.isnan(found.utility.mean[found.utility.m == m]).any()]
    for m in (0.0, given):
        if m in unknown:
            raise FitError(
                f"utility is undefined at m = {m:g} with reduction={hp.reduction!r}, so its loss is not known: "
                "use reduction=sum"
            )
    if found.utility.n_undefined:
        print(f"note: {found.utility.n_undefined} of {found.utility.n_points} utility points are undefined, so other "
              "pairs are compared at each strength: use reduction=sum")  # fmt: skip
    rows = [(float(m), *found.measured_at(float(m))) for m in factors if m not in unknown]
    print_table(["m", "preference gained", "utility lost"], [[f"{m:g}", *row] for m, *row in rows])
    within = [row for row in rows if row[2] <= budget and (given is None or row[0] == given)]
    best = max(within, key=lambda row: row[1], default=None)
    passed = best is not None and best[1] >= arguments.gain
    where = f"{len(pairs)} pairs, nats ({hp.reduction})"
    asked = f"{nats(arguments.gain)} for at most {budget:g} of utility"
    if best is None:
        print(f"failed: m = {given:g} costs more than the budget ({where}; asked: {asked})" if given is not None
              else f"failed: no strength keeps within the budget ({where}; asked: {asked})")  # fmt: skip
    else:
        gain, loss = beside(best[1], arguments.gain), beside(best[2], budget)
        print(f"{'passed' if passed else 'failed'}: m = {best[0]:g} gains {gain} nats of preference for {loss} of "
              f"utility ({where}; asked: {asked})")  # fmt: skip
    return 0 if passed else 1


def _change(arguments: argparse.Namespace, hp: Hyperparameters) -> SteeringArtifact:
    from ..formats.hub import LAYERS, find
    from ..importing import read_change

    place = find(arguments.vector)
    own = bool(place.files) if place.path.is_dir() else place.path.match(LAYERS)
    if own and (arguments.site or arguments.pick):
        raise ConfigError(f"{place} is a change of this package, which knows its site: leave --site and --pick out")
    return (
        load_artifact(place, hp, arguments.any_model)
        if own
        else read_change(place.path, arguments.site, arguments.pick)
    )
