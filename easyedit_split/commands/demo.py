"""`easyedit-split demo`: the three forms on the shipped model, end to end."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..hyperfiles import load_hparams
from .common import data, load, print_table

GRID = np.linspace(-6, 6, 25)
ALONG = np.linspace(-6, 6, 7)  # strengths at which the activation manifold is looked at
BUDGET = 1.0
TRAIN_SWEPT, TEST_SWEPT = 64, 100


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=("reviews", "traits", "concepts"), default="reviews", help="micro data set")
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder to write (default: runs/demo)")


@dataclass(frozen=True)
class _Form:
    """What the demo makes of one form."""

    name: str
    seconds: float
    artifact: Any
    table: Any
    analysis: Any


def run(arguments: argparse.Namespace) -> int:
    from ..deltas import FORMS
    from ..easyedit.shipped import hparams_path
    from ..runs import report_run

    folder = Path(arguments.out)
    files = {form: hparams_path(f"demo/{arguments.task}/split_{form}") for form in FORMS}
    chosen = {
        "model_name_or_path": "demo", "train_data": f"demo:{arguments.task}", "test_data": f"demo:{arguments.task}",
        "concept_id": 0,
    }  # fmt: skip
    hps = {form: load_hparams(path, overrides=chosen) for form, path in files.items()}
    first = hps[FORMS[0]]
    pairs, test = data(first, "train_data"), data(first, "test_data")[:TEST_SWEPT]
    model, tokenizer = load(first)
    print(f"SPLIT on the demo model, task {arguments.task}: {len(pairs)} training pairs, {len(test)} test pairs\n")
    forms = [_one_form(hp, model, tokenizer, pairs, test, folder) for hp in hps.values()]
    print("fitting the law, drawing intervals and figures")
    report = report_run(folder, BUDGET, title=f"SPLIT on the demo model, {arguments.task}")
    _print_curves(forms)
    _print_fits(forms)
    _print_generations(forms, model, tokenizer, [p.question for p in test[:3]])
    print(f"\nartifacts and sweeps: {', '.join(str(folder / f.name) for f in forms)}")
    print(f"figures: {', '.join(str(f) for f in report.figures if f.suffix == '.png')}")
    print(f"report: {report.html}")
    return 0


def _one_form(hp: Any, model: Any, tokenizer: Any, pairs: Any, test: Any, folder: Path) -> _Form:
    from ..activations import collect_activations
    from ..analysis import analyse
    from ..runs import ACTIVATIONS, PROMOTED, TEST, TRAIN, save_activations, save_promoted
    from ..sweeps import sweep
    from ..training import train_from

    form = hp.intervention_method
    print(f"{form}: training {hp.n_epochs} epochs, then {len(test)} test pairs at {len(GRID)} strengths")
    start = time.monotonic()
    ((_, artifact),) = train_from(hp, model, tokenizer, pairs, progress=True)
    seconds = time.monotonic() - start
    artifact.save(folder / form)
    table = sweep(model, tokenizer, test, artifact, GRID, "sum", progress=True)
    table.save(folder / form / TEST)
    sweep(model, tokenizer, pairs[:TRAIN_SWEPT], artifact, GRID, "sum", progress=True).save(folder / form / TRAIN)
    activations = collect_activations(model, tokenizer, test[:16], artifact, ALONG.tolist())
    save_activations(folder / form / ACTIVATIONS, ALONG, activations)
    save_promoted(folder / form / PROMOTED, model, tokenizer, artifact)
    return _Form(form, seconds, artifact, table, analyse(table, BUDGET))


def _print_curves(forms: Sequence[_Form]) -> None:
    shown = [float(m) for m in GRID if m in (-4, 0, 1, 2, 4, 6)]
    print("\nMean preference / utility log-odds on the test pairs (nats, sequence sum) at strength m:")
    rows = []
    for f in forms:
        at = {float(m): k for k, m in enumerate(f.table.factors)}
        p, u = f.analysis.preference.mean, f.analysis.utility.mean
        cells = [f"{p[at[m]]:+.1f} / {u[at[m]]:+.1f}" for m in shown]
        rows.append([f.name, f"{f.seconds:.1f} s", *cells, f.analysis.utility.n_undefined])
    print_table(["form", "training", *[f"m = {m:g}" for m in shown], "undefined"], rows)


def _print_fits(forms: Sequence[_Form]) -> None:
    print(f"\nDecay law (Eqs. 12, 15, 17), and the strength of highest preference within {BUDGET:g} nat of utility:")
    rows: list[list[object]] = []
    for f in forms:
        a = f.analysis
        r2 = [f"{fit.r2:.4f}" if fit else "no fit" for fit in (a.preference_fit, a.utility_fit)]
        if a.recommendation is None or a.recommendation.m is None:
            rows.append([f.name, *r2, "none", "", "", ""])
            continue
        r = a.recommendation
        interval = f"[{r.interval[0]:.2f}, {r.interval[1]:.2f}]" if r.interval else ""
        rows.append([f.name, *r2, float(r.m), interval, float(r.preference_gain), float(r.utility_drop)])
    heads = ["form", "R2 preference", "R2 utility", "recommended m", "95% interval", "gain", "utility drop"]
    print_table(heads, rows)


def _print_generations(forms: Sequence[_Form], model: Any, tokenizer: Any, questions: Sequence[str]) -> None:
    from ..generation import generate

    plain = generate(model, tokenizer, questions)
    steered = {}
    for f in forms:
        if f.analysis.recommendation is not None and f.analysis.recommendation.m is not None:
            with f.artifact.attach(model, f.analysis.recommendation.m):
                steered[f"{f.name}, m = {f.analysis.recommendation.m:.2f}"] = generate(model, tokenizer, questions)
    print()
    for i, question in enumerate(questions):
        print(f"> {question}\n  unsteered: {plain[i]}")
        for label, answers in steered.items():
            print(f"  {label}: {answers[i]}")
