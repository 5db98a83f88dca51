"""`easyedit-split generate`."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from .common import (
    any_model_option,
    artifact_option,
    check_steered,
    far_strengths,
    hparams_options,
    load,
    load_artifact,
    own_strength,
    settings,
)


def options(parser: argparse.ArgumentParser) -> None:
    artifact_option(parser, "steer with this change")
    parser.add_argument(
        "-m",
        type=float,
        action="append",
        metavar="M",
        help="strength; several are shown in turn; without it, multipliers, or the one that the change keeps",
    )
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a question; may be repeated")
    parser.add_argument("--prompts", metavar="FILE", help="a text file, one question a line")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) is greedy")
    any_model_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from transformers import TextStreamer

    from ..formats.hub import find
    from ..generation import generate

    check_steered(arguments)
    hp = settings(arguments)
    prompts = _prompts(arguments)
    place = find(arguments.artifact) if arguments.artifact else None
    artifact = load_artifact(place, hp, arguments.any_model) if place else None
    strengths = [(m, m) for m in arguments.m or hp.multipliers]
    if artifact and place:
        if not strengths:
            kept = own_strength(artifact, place)
            strengths = [(kept.m1, kept.m2) if kept else (1.0, 1.0)]
        for note in far_strengths(place, artifact, sorted({m for both in strengths for m in both})):
            print(f"note: {note}")
    model, tokenizer = load(hp)
    for m1, m2 in strengths if artifact else [(0.0, 0.0)]:
        attached = artifact.attach(model, m1=m1, m2=m2) if artifact else contextlib.nullcontext()
        shared = {
            "max_new_tokens": hp.max_new_tokens, "temperature": arguments.temperature, "seed": hp.seed,
            "chat": hp.use_chat_template, "system_prompt": hp.system_prompt,
        }  # fmt: skip
        steered = f"# m = {m1:g}" if m1 == m2 else f"# m1 = {m1:g}, m2 = {m2:g}"
        print(steered if artifact else "# unsteered")
        with attached:
            if len(prompts) == 1:
                streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
                generate(model, tokenizer, prompts, streamer=streamer, **shared)
                continue
            for prompt, answer in zip(
                prompts, generate(model, tokenizer, prompts, progress=True, **shared), strict=True
            ):
                print(f"> {prompt}\n{answer}\n")
    return 0


def _prompts(arguments: argparse.Namespace) -> list[str]:
    from ..errors import ConfigError

    prompts = list(arguments.prompt)
    if arguments.prompts:
        try:
            text = Path(arguments.prompts).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{arguments.prompts} cannot be read ({error}): check the path") from None
        prompts += [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ConfigError("no question given: use --prompt TEXT or --prompts FILE")
    if not all(prompt.strip() for prompt in prompts):
        print("note: a prompt is empty: what follows it answers no question, only the chat template around it")
    return prompts
