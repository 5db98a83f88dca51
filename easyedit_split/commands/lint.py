"""`easyedit-split lint`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .common import hparams_options, load, print_table, settings

if TYPE_CHECKING:
    from ..data.lint import Finding
    from ..data.pairs import PreferencePair
    from ..settings.hyperparameters import Hyperparameters

SHOWN = 6  # rows of a finding


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="pairs: a file (.jsonl, .json, .csv, .parquet), or a data set's name"
    )
    parser.add_argument("--train", metavar="FILE", help="training pairs, in which those of FILE should not be found")
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="token lengths against the context (set model_name_or_path; only its tokenizer is loaded)",
    )
    parser.add_argument(
        "--losses", action="store_true", help="pairs already won by 20 nats, or hopeless (set model_name_or_path)"
    )
    parser.epilog = "Exit status: 0 where nothing was found, 1 where something was, 2 for a mistake."
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..data.lint import lint
    from ..data.sources import load_part

    hp = settings(arguments)
    if (arguments.tokens or arguments.losses) and not hp.model_name_or_path:
        raise ConfigError("--tokens and --losses need a model: set model_name_or_path=FOLDER (or demo)")
    places, numbers, pairs, found = _read(arguments.file, "test" if arguments.train else "train")
    training = load_part(arguments.train, "train") if arguments.train else []
    of_pairs = lint(pairs, training)
    if arguments.tokens or arguments.losses:
        of_tokens = _of_tokens(hp, pairs)
        of_pairs += of_tokens
        if arguments.losses:
            of_pairs += _of_losses(hp, pairs, {i for f in of_tokens for i in f.rows})
    table = [
        [f.check, len(f.rows), f"{len(f.rows) / len(places):.0%}", _shown(f, places, which), f.remedy]
        for group, which in ((found, range(len(places))), (of_pairs, numbers))
        for f in group
    ]
    if not table:
        print(f"{len(pairs)} pairs of {arguments.file}: nothing found")
        return 0
    print_table(["found", "pairs", "share", "where", "what to do"], table)
    print(f"{len(pairs)} pairs of {arguments.file}: {len(table)} {'finding' if len(table) == 1 else 'findings'}")
    return 1


def _shown(finding: Finding, places: Sequence[str], numbers: Sequence[int]) -> str:
    if finding.detail and len(finding.rows) > SHOWN:
        return finding.detail
    named = ", ".join(places[numbers[i]] for i in finding.rows[:SHOWN])
    rest = f" and {len(finding.rows) - SHOWN} more" if len(finding.rows) > SHOWN else ""
    return named + rest + (f" ({finding.detail})" if finding.detail else "")


def _read(source: str, part: str) -> tuple[list[str], list[int], list[PreferencePair], list[Finding]]:
    """Places of all rows, the rows that could be read, their pairs, and a finding for every other row; of a data set's
    name, its `part`."""
    from ..data.lint import readable_pairs
    from ..data.pairs import SUFFIXES, read_rows
    from ..data.sources import load_part

    if not Path(source).is_file() and Path(source).suffix not in SUFFIXES:
        pairs = load_part(source, part)
        return [f"row {i + 1}" for i in range(len(pairs))], list(range(len(pairs))), pairs, []
    rows = list(read_rows(Path(source)))
    pairs, numbers, found = readable_pairs(rows, source)
    return [place for place, _ in rows], numbers, pairs, found


def _of_tokens(hp: Hyperparameters, pairs: Sequence[PreferencePair]) -> list[Finding]:
    """With the tokenizer and the model's config alone."""
    from transformers import AutoConfig, AutoTokenizer

    from ..data.lint import lint_tokens
    from ..data.tokens import Encoder
    from ..demo import model_path

    name = str(model_path()) if hp.model_name_or_path == "demo" else str(hp.model_name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        config: Any = AutoConfig.from_pretrained(name).get_text_config()
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"the tokenizer of {name!r} cannot be loaded ({reason}): give a model folder") from None
    context = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return lint_tokens(pairs, Encoder(tokenizer, hp.use_chat_template, hp.system_prompt), context)


def _of_losses(hp: Hyperparameters, pairs: Sequence[PreferencePair], bad: set[int]) -> list[Finding]:
    """Of the pairs that fit the model: `bad` are those that do not."""
    from ..data.lint import lint_losses
    from ..sweeps.run import sweep

    if hp.system_prompt:
        raise ConfigError("--losses puts the questions without a system prompt: leave system_prompt out")
    kept = [i for i in range(len(pairs)) if i not in bad]
    if not kept:
        return []
    model, tokenizer = load(hp)
    asked = [pairs[i] for i in kept]
    table = sweep(model, tokenizer, asked, None, [0.0], "sum", chat=hp.use_chat_template, progress=True)
    words = model.get_input_embeddings().weight.shape[0]
    found = lint_losses(table.loss_pos[0].tolist(), table.loss_neg[0].tolist(), table.tokens_pos.tolist(), words)
    return [replace(f, rows=tuple(kept[i] for i in f.rows)) for f in found]
