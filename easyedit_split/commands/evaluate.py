"""`easyedit-split evaluate`."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..folders import EVALUATION, beside
from ..storage.files import write_text
from .common import (
    any_model_option,
    artifact_option,
    check_steered,
    data,
    far_strengths,
    hparams_options,
    load,
    load_artifact,
    output_dir,
    print_table,
    settings,
)


def options(parser: argparse.ArgumentParser) -> None:
    artifact_option(parser, "steer with this change; without it, nothing is steered")
    parser.add_argument(
        "-m", type=float, action="append", metavar="M", help="strength; may be repeated (default: 0, 1)"
    )
    parser.add_argument(
        "--rubric", action="append", default=[], metavar="NAME",
        help="ask a judge: concept, instruct, fluency, power_seeking; may be repeated",
    )  # fmt: skip
    any_model_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..changes.provenance import source_of
    from ..evaluation.accuracy import has_fixed_answers
    from ..evaluation.rubrics import rubric
    from ..folders import check_home
    from ..formats.hub import find

    check_steered(arguments)
    for name in arguments.rubric:
        rubric(name)
    hp = settings(arguments)
    folder, pairs = output_dir(hp), data(hp, "test_data")
    judge = _judge(hp, arguments.rubric)
    place = find(arguments.artifact) if arguments.artifact else None
    artifact = load_artifact(place, hp, arguments.any_model) if place else None
    strengths = (arguments.m or [0.0, 1.0]) if artifact else [0.0]
    if artifact and place:
        check_home(folder, source_of(artifact))
        for note in far_strengths(place, artifact, strengths):
            print(f"note: {note}")
    model, tokenizer = load(hp)
    runs = [_texts(hp, model, tokenizer, pairs, artifact, m) for m in strengths]
    found = [
        {"m": m, **_without_judge(hp, model, tokenizer, pairs, texts)} for m, texts in zip(strengths, runs, strict=True)
    ]
    if not has_fixed_answers(pairs):
        print("note: the answers of these data are open-ended, so texts have no accuracy; likelihoods have: see sweep")
    if judge is not None:
        _add_judged(found, judge, arguments.rubric, pairs, runs)
    names = list(dict.fromkeys(name for row in found for name in row))
    print_table(names, [[_cell(row.get(name)) for name in names] for row in found])
    about = _made_from(hp, model, pairs, artifact)
    path, kept = _write(folder, hp.overwrite, about, found, pairs, runs)
    print(f"{len(pairs)} questions at {len(strengths)} strengths -> {path}, {kept}")
    return 0


def _made_from(hp: Any, model: Any, pairs: Any, artifact: Any) -> dict[str, Any]:
    """What every line of the files says it was made from."""
    from ..data.pairs import pairs_hash
    from ..models.identity import model_fingerprint

    settings = [hp.use_chat_template, hp.system_prompt, hp.max_new_tokens, hp.seed, hp.dtype]
    return {
        "change": artifact.id if artifact else None, "weights": model_fingerprint(model),
        "pairs_sha256": pairs_hash(pairs), "settings": hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16],
    }  # fmt: skip


def _write(
    folder: Path,
    overwrite: bool,
    about: dict[str, Any],
    found: list[dict[str, Any]],
    pairs: Any,
    runs: list[list[str]],
) -> tuple[Path, Path]:
    """The scores and the texts; beside those of other texts, under names of their own."""
    run = hashlib.sha256(json.dumps([about, [row["m"] for row in found]]).encode()).hexdigest()
    path = beside(folder / EVALUATION, run, _run_of(folder / EVALUATION), overwrite)
    texts_path = path.with_name(path.name.replace("evaluation", "generations")).with_suffix(".jsonl")
    rows = [
        json.dumps({"m": row["m"], "question": p.question, "text": t, **about}, ensure_ascii=False)
        for row, texts in zip(found, runs, strict=True)
        for p, t in zip(pairs, texts, strict=True)
    ]
    write_text(path, json.dumps([{**row, **about, "run": run} for row in found], indent=1) + "\n")
    return path, write_text(texts_path, "\n".join(rows) + "\n")


def _run_of(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))[0]["run"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _judge(hp: Any, rubrics: list[str]) -> Any:
    """None where no rubric is asked about."""
    from ..evaluation.judging import find_judge

    if not rubrics:
        return None
    found = find_judge("auto", hp.test_data.removeprefix("demo:"), output_dir(hp) / "judge-replies.jsonl")
    if found is None:
        raise ConfigError("--rubric needs a judge: set OPENAI_API_KEY (and OPENAI_BASE_URL for another endpoint)")
    return found


def _texts(hp: Any, model: Any, tokenizer: Any, pairs: Any, artifact: Any, m: float) -> list[str]:
    from ..generation import generate

    with artifact.attach(model, m) if artifact else contextlib.nullcontext():
        return generate(
            model, tokenizer, [p.question for p in pairs], max_new_tokens=hp.max_new_tokens, seed=hp.seed,
            chat=hp.use_chat_template, system_prompt=hp.system_prompt, progress=True,
        )  # fmt: skip


def _without_judge(hp: Any, model: Any, tokenizer: Any, pairs: Any, texts: list[str]) -> dict[str, Any]:
    from ..evaluation.accuracy import generation_accuracy, has_fixed_answers
    from ..evaluation.perplexity import perplexity
    from ..evaluation.text import text_measures

    shared = {"chat": hp.use_chat_template, "system_prompt": hp.system_prompt}
    found: dict[str, Any] = {}
    if has_fixed_answers(pairs):
        found["accuracy"], found["answered"] = generation_accuracy(texts, pairs)
    found["perplexity"] = perplexity(model, tokenizer, [p.question for p in pairs], texts, **shared)
    return {**found, **text_measures(texts)}


def _add_judged(found: list[dict[str, Any]], judge: Any, rubrics: list[str], pairs: Any, runs: list[list[str]]) -> None:
    from ..evaluation.judging import items_of, judge_texts

    price = judge.estimate([item for texts in runs for item in items_of(rubrics, pairs, texts)])
    print(f"judge {judge.name}: {price}", flush=True)
    reasons: Counter[str] = Counter()
    for row, texts in zip(found, runs, strict=True):
        judged = judge_texts(judge, rubrics, pairs, texts)
        row.update({**judged.scores, "missing": sum(judged.missing[name] for name in rubrics)})
        reasons.update(judged.reasons)
    for reason, count in reasons.items():
        print(f"{count} scores are missing: {reason}")


def _cell(value: Any) -> Any:
    return "-" if value is None else value
