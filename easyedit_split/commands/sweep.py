"""`easyedit-split sweep`."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from .common import (
    any_model_option,
    artifact_option,
    budget_option,
    checkpoint_option,
    data,
    given_keys,
    hparams_options,
    load,
    load_artifact,
    output_dir,
    print_table,
    settings,
    unrelated,
)

OTHER_STRENGTHS = ("steering_factors", "multipliers")  # keys with strengths that sweep does not read


def options(parser: argparse.ArgumentParser) -> None:
    artifact_option(parser, "the change to sweep", required=True)
    parser.add_argument(
        "--out", metavar="FILE",
        help="the table to write (default: sweep.parquet in output_dir; a second sweep of other settings goes beside "
        "it as sweep-<settings>.parquet)",
    )  # fmt: skip
    parser.add_argument(
        "--texts", type=int, default=0, metavar="N",
        help="also keep the greedy answers to the first N test questions at every strength (max_new_tokens long at "
        "most), and measure them, for fit, report and the report's page; 41 strengths and N = 3 are 123 answers, and "
        "the bar says how long that takes (default: 0, at most 20)",
    )  # fmt: skip
    parser.add_argument(
        "--strengths", type=int, metavar="N",
        help="find N strengths from the curves themselves, in place of factors: as far out as the curves have more to "
        "tell, then where they are known least, then where the best one lies (17 or more; 25 do well)",
    )  # fmt: skip
    parser.add_argument(
        "--refine", action="store_true", help="then add up to 8 strengths where the best one within the budget lies"
    )
    budget_option(parser, "that budget")
    any_model_option(parser)
    checkpoint_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    wrong = [key for key in given_keys(arguments) if key in OTHER_STRENGTHS]
    if wrong:
        raise ConfigError(f"{wrong[0]} is not read by sweep: its strengths are factors, as in factors=[-4,-2,0,2,4]")

    if arguments.strengths is not None and (arguments.refine or "factors" in given_keys(arguments)):
        raise ConfigError("--strengths finds and refines the strengths itself: leave out --refine and factors")

    import numpy as np

    from ..analysis.pipeline import check_budget
    from ..changes.provenance import source_of
    from ..distributed import processes, rank
    from ..evaluation.swept_texts import measure_texts
    from ..folders import TEST, sweep_file
    from ..formats.hub import find
    from ..storage.locks import folder_lock
    from ..sweeps.refine import refine, set_out
    from ..sweeps.run import sweep, sweep_header
    from ..sweeps.search import check_strengths, search, searched
    from ..sweeps.table import settings_id
    from ..texts import check_number, drop_others, save_texts, write_texts

    budget = arguments.max_utility_drop
    check_budget(budget)
    check_number(arguments.texts)
    if arguments.strengths is not None:
        check_strengths(arguments.strengths)
    hp = settings(arguments)
    artifact = load_artifact(find(arguments.artifact), hp, arguments.any_model)
    pairs = data(hp, "test_data")
    target = Path(arguments.out or output_dir(hp) / TEST)
    factors = np.array(hp.factors or np.linspace(-20, 20, 41))
    if len(np.unique(factors)) < len(factors):
        raise ConfigError(f"factors lists a strength twice ({', '.join(f'{m:g}' for m in factors)}): give each once")
    if target.is_dir():
        raise ConfigError(f"--out {target} is a folder: name a file in it, such as {target / TEST}")
    with processes(folder_lock(target.parent)):
        model, tokenizer = load(hp)
        artifact.resolve_all(model)
        header = sweep_header(model, tokenizer, pairs, artifact)
        if arguments.strengths is not None:
            header |= searched(arguments.strengths, budget)
        elif arguments.refine:
            header |= set_out(factors, budget)
        plan = settings_id(header, factors, hp.reduction)
        target = sweep_file(target, bool(arguments.out), source_of(artifact), plan, hp.overwrite)
        partial = target.with_name(f".{target.name}.partial")
        if arguments.strengths is not None:
            table = search(model, tokenizer, pairs, artifact, arguments.strengths, hp.reduction, budget, progress=True)
        else:
            table = sweep(
                model, tokenizer, pairs, artifact, factors, hp.reduction,
                progress=True, partial=partial, partial_seconds=arguments.checkpoint_seconds, overwrite=hp.overwrite,
            )  # fmt: skip
        if arguments.refine:
            table = refine(model, tokenizer, pairs, artifact, table, budget)
        if arguments.any_model:
            table = replace(table, header={**table.header, "any_model": True})
        if rank() > 0:
            return 0
        drop_others(target, table)
        path = table.save(target)
        partial.unlink(missing_ok=True)
        if arguments.texts:
            start = time.monotonic()
            texts = write_texts(
                model, tokenizer, pairs, artifact, table, arguments.texts, max_new_tokens=hp.max_new_tokens,
                progress=True,
            )  # fmt: skip
            texts = measure_texts(
                model, tokenizer, artifact, table, texts, unrelated=unrelated(hp), progress=True,
            )  # fmt: skip
            kept = save_texts(path, texts, table)
            said = f"{len(texts.questions)} texts at each of {len(texts.m)} strengths"
            print(f"{said}, {time.monotonic() - start:.1f} s -> {kept}")
    preference, utility = table.preference(), table.utility()
    undefined = int(np.isnan(utility).sum())
    rows = [
        [f"{m:g}", float(p.mean()), float(u[~np.isnan(u)].mean()) if (~np.isnan(u)).any() else "undefined"]
        for m, p, u in zip(table.factors, preference, utility, strict=True)
    ]
    print_table(["m", "preference", "utility"], rows)
    print(f"{len(pairs)} pairs, nats ({hp.reduction}), {undefined} undefined utility points -> {path}")
    return 0
