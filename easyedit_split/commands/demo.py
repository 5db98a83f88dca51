"""`easyedit-split demo`: the three forms end to end, on the shipped model or on SmolLM2-135M-Instruct."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..demo import ENGLISH, TASKS
from ..errors import ConfigError, nearest
from ..models.gguf_weights import SMOLLM2
from ..settings.files import load_hparams
from .common import data, load, print_table, unrelated

GRID = np.linspace(-6, 6, 25)
ALONG = np.linspace(-6, 6, 7)  # strengths at which the activation manifold is looked at
BUDGET = 1.0
SHOWN = 3  # test questions whose answers are printed


@dataclass(frozen=True)
class _Demo:
    """What a model is shown with. `graded`: its answers are judged by the micro-world's grammar.

    `train_swept`, `test_swept`: pairs of each part that are swept; the grid is that of each form's file, or `GRID`.
    """

    title: str
    folder: str  # of its hyper-parameter files
    tasks: tuple[str, ...]
    train_swept: int
    test_swept: int
    graded: bool
    max_new_tokens: int


_DEMOS = {
    "demo": _Demo("the demo model", "demo", TASKS, 64, 100, True, 64),
    SMOLLM2: _Demo("SmolLM2-135M-Instruct", "smollm2-135m-instruct", ENGLISH, 0, 60, False, 32),
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", choices=tuple(_DEMOS), default="demo", help=f"{SMOLLM2}: a real model, about eight minutes"
    )
    parser.add_argument("--task", help=f"data set: {', '.join(TASKS)}; of {SMOLLM2}: {', '.join(ENGLISH)}")
    parser.add_argument("--out", metavar="DIR", help="folder to write (default: runs/demo[-smollm2][-TASK])")


@dataclass(frozen=True)
class _Form:
    """What the demo makes of one form."""

    name: str
    seconds: float
    artifact: Any
    table: Any
    analysis: Any
    m: float | None
    texts: list[str]
    scores: dict[str, float]
    too_much: list[str]  # answers at the largest strength swept, where the demo shows them


def run(arguments: argparse.Namespace) -> int:
    from ..changes.forms import FORMS
    from ..generation import generate
    from ..run_folder import report_run
    from ..scoring.prefix_reuse import shared_prefixes
    from ..settings.shipped import hparams_path

    demo = _DEMOS[arguments.model]
    task = arguments.task or demo.tasks[0]
    if task not in demo.tasks:
        raise ConfigError(f"{demo.title} has no task {task!r}{nearest(task, demo.tasks)}")
    parts = ["demo", *([] if demo.graded else [arguments.model]), *([] if task == demo.tasks[0] else [task])]
    folder = Path(arguments.out or f"runs/{'-'.join(parts)}")
    files = {form: hparams_path(f"{demo.folder}/{task}/split_{form}") for form in FORMS}
    chosen = {
        "model_name_or_path": arguments.model, "train_data": f"demo:{task}", "test_data": f"demo:{task}",
        "concept_id": 0,
    }  # fmt: skip
    hps = {form: load_hparams(path, overrides=chosen) for form, path in files.items()}
    first = hps[FORMS[0]]
    pairs, test = data(first, "train_data"), data(first, "test_data")[: demo.test_swept]
    model, tokenizer = load(first)
    print(f"SPLIT on {demo.title}, task {task}: {len(pairs)} training pairs, {len(test)} test pairs\n")
    with shared_prefixes():
        forms = [_one_form(hp, demo, model, tokenizer, pairs, test, task, folder) for hp in hps.values()]
    print("fitting the law, drawing intervals and figures")
    report = report_run(folder, BUDGET, title=f"SPLIT on {demo.title}, {task}")
    _print_curves(forms)
    _print_fits(forms)
    questions = _asked(test if demo.graded else test[:SHOWN])
    plain = generate(model, tokenizer, questions, max_new_tokens=demo.max_new_tokens)
    if demo.graded:
        _print_scores(forms, _scores(task, test, plain))
    _print_generations(forms, questions, plain)
    print(f"\nartifacts and sweeps: {', '.join(str(folder / f.name) for f in forms)}")
    print(f"figures: {', '.join(str(f) for f in report.figures if f.suffix == '.png')}")
    print(f"report: {report.html}")
    return 0


def _asked(test: Sequence[Any]) -> list[str]:
    return [pair.question for pair in test]


def _one_form(
    hp: Any, demo: _Demo, model: Any, tokenizer: Any, pairs: Any, test: Any, task: str, folder: Path
) -> _Form:
    from ..analysis import analyse
    from ..changes.provenance import source_of
    from ..evaluation.swept_texts import measure_texts
    from ..folders import ACTIVATIONS, PROMOTED, SCORES, TEST, TRAIN, changes_in, clear, same_change
    from ..run_folder import save_activations, save_promoted, save_scores
    from ..scoring.activations import collect_activations
    from ..sweeps.refine import refine
    from ..sweeps.run import sweep
    from ..texts import save_texts, write_texts
    from ..training.from_settings import planned_source, train_from

    _check_own(folder / hp.intervention_method, planned_source(hp, pairs))
    form, grid = hp.intervention_method, np.array(hp.factors) if hp.factors else GRID
    print(f"{form}: training {hp.n_epochs} epochs, then {len(test)} test pairs at {len(grid)} strengths")
    start = time.monotonic()
    ((_, artifact),) = train_from(hp, model, tokenizer, pairs, progress=True)
    seconds = time.monotonic() - start
    if not all(same_change(kept, source_of(artifact)) for kept in changes_in(folder / form).values()):
        clear(folder / form)  # what was made from it on another machine
    artifact.save(folder / form)
    table = sweep(model, tokenizer, test, artifact, grid, "sum", progress=True)
    table = refine(model, tokenizer, test, artifact, table, BUDGET)
    kept = write_texts(model, tokenizer, test, artifact, table, SHOWN, max_new_tokens=demo.max_new_tokens)
    kept = measure_texts(model, tokenizer, artifact, table, kept, unrelated=unrelated(hp))
    save_texts(table.save(folder / form / TEST), kept, table)
    if demo.train_swept:
        swept = sweep(model, tokenizer, pairs[: demo.train_swept], artifact, grid, "sum", progress=True)
        swept.save(folder / form / TRAIN)
        activations = collect_activations(model, tokenizer, test[:16], artifact, ALONG.tolist())
        save_activations(folder / form / ACTIVATIONS, ALONG, activations, artifact.id)
    save_promoted(folder / form / PROMOTED, model, tokenizer, artifact)
    analysis = analyse(table, BUDGET, texts=kept)
    m = analysis.recommendation.m if analysis.recommendation else None
    too_much = [] if demo.graded else kept.of(grid[-1])
    if m is None:
        return _Form(form, seconds, artifact, table, analysis, None, [], {}, too_much)
    texts = _answers(model, tokenizer, artifact, _asked(test), demo.max_new_tokens, m) if demo.graded else kept.of(m)
    scores = _scores(task, test, texts) if demo.graded else {}
    if scores:
        save_scores(folder / form / SCORES, scores, m, artifact.id)
    return _Form(form, seconds, artifact, table, analysis, m, texts, scores, too_much)


def _check_own(folder: Path, planned: dict[str, Any]) -> None:
    """Check that a form's folder holds nothing, or what an earlier demo of the same task left."""
    from ..errors import ArtifactError
    from ..folders import changes_in, differences

    for file, kept in changes_in(folder).items():
        found = differences(kept, planned)
        if found:
            raise ArtifactError(f"{file} is of another run ({'; '.join(found[:3])}): choose another --out")


def _answers(
    model: Any, tokenizer: Any, artifact: Any, questions: list[str], max_new_tokens: int, m: float
) -> list[str]:
    from ..generation import generate

    with artifact.attach(model, m):
        return generate(model, tokenizer, questions, max_new_tokens=max_new_tokens)


def _scores(task: str, test: Sequence[Any], texts: Sequence[str]) -> dict[str, float]:
    """Mean scores of generations by the micro-world's own grammar: shares, and the rubrics from 0 to 2."""
    from ..demo.judge import judge
    from ..evaluation.harmonic import harmonic_mean

    verdicts = [judge(task, pair.question, text, pair.concept) for pair, text in zip(test, texts, strict=True)]
    rubrics = [(float(v.concept), float(v.instruct), float(v.fluency)) for v in verdicts]
    means = np.mean(rubrics, axis=0)
    return {
        "wanted": float(np.mean([v.concept == 2 for v in verdicts])),
        "well formed": float(np.mean([v.well_formed for v in verdicts])),
        "concept": float(means[0]), "instruct": float(means[1]), "fluency": float(means[2]),
        "harmonic mean": float(np.mean([harmonic_mean(r) for r in rubrics])),
    }  # fmt: skip


def _print_scores(forms: Sequence[_Form], plain: dict[str, float]) -> None:
    print("\nGenerations at it, judged by the micro-world's grammar (shares of answers; rubrics from 0 to 2):")
    rows = [[name, *scores.values()] for name, scores in [("unsteered", plain), *((f.name, f.scores) for f in forms)]]
    print_table(["form", *plain], [row for row in rows if len(row) > 1])


def _print_curves(forms: Sequence[_Form]) -> None:
    print("\nMean preference / utility log-odds on the test pairs (nats, sequence sum) at strength m:")
    for shown in dict.fromkeys(_some(f.table.factors) for f in forms):
        rows = []
        for f in (f for f in forms if _some(f.table.factors) == shown):
            at = {float(m): k for k, m in enumerate(f.table.factors)}
            p, u = f.analysis.preference.mean, f.analysis.utility.mean
            cells = [f"{p[at[m]]:+.1f} / {u[at[m]]:+.1f}" for m in shown]
            rows.append([f.name, f"{f.seconds:.1f} s", *cells, f.analysis.utility.n_undefined])
        print_table(["form", "training", *[f"m = {m:g}" for m in shown], "undefined"], rows)


def _some(factors: Any) -> tuple[float, ...]:
    """A few of a form's strengths: those that every micro sweep shows, or about six of another grid with 0."""
    known = [float(m) for m in factors]
    usual = tuple(m for m in known if m in (-4, 0, 1, 2, 4, 6))
    if len(usual) == 6:
        return usual
    return tuple(m for k, m in enumerate(known) if m == 0 or k % 2 == 0)


def _print_fits(forms: Sequence[_Form]) -> None:
    print(
        f"\nDecay law (Eqs. 12, 15, 17), and the strength of highest preference within {BUDGET:g} nat of utility, with"
    )
    print("the gain and the loss measured there:")
    rows: list[list[object]] = []
    for f in forms:
        a = f.analysis
        r2 = [f"{fit.r2:.4f}" if fit else "no fit" for fit in (a.preference_fit, a.utility_fit)]
        if a.recommendation is None or a.recommendation.m is None:
            rows.append([f.name, *r2, "none", "", "", "", ""])
            continue
        r = a.recommendation
        interval = f"[{r.interval[0]:.2f}, {r.interval[1]:.2f}]" if r.interval else ""
        rows.append([f.name, *r2, float(r.m), interval, float(r.preference_gain),
                     f"{r.utility_drop:.2f} ± {r.drop_error:.2f}", "yes" if r.reliable else "no"])  # fmt: skip
    heads = ["form", "R2 preference", "R2 utility", "recommended m", "95% interval", "gain", "utility lost", "reliable"]
    print_table(heads, rows)
    for f in forms:
        print(f"{f.name}: {f.analysis.advice}")


def _print_generations(forms: Sequence[_Form], questions: Sequence[str], plain: Sequence[str]) -> None:
    print()
    for i, question in enumerate(questions[:SHOWN]):
        print(f"> {question}\n  unsteered: {_line(plain[i])}")
        for f in forms:
            if f.m is not None:
                print(f"  {f.name}, m = {f.m:.2f}: {_line(f.texts[i])}")
            if f.too_much:
                print(f"  {f.name}, m = {max(f.table.factors):.2f}, too much: {_line(f.too_much[i])}")


def _line(text: str) -> str:
    return " ".join(text.split())
