"""The present settings as something to take away: Python, a command, a request for the server."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .asked import Asked, Strengths
from .change import DialledChange
from .session import Session

SERVER = "http://127.0.0.1:8000/v1/chat/completions"
NO_COMMAND = "# the command takes one question, one change and one m: use the lines of Python"


def recipes(session: Session, asked: Asked) -> dict[str, str]:
    """Python, command and request that give the first row of `asked` again."""
    turns, strengths = asked.rows[0].turns, asked.rows[0].strengths
    on = [(c, s) for c, s in zip(session.changes, strengths, strict=True) if s.m1 or s.m2]
    return {
        "python": _python(session, turns, on, asked),
        "command": _command(session, turns, on, asked),
        "request": _request(session, turns, on, asked),
    }


def _python(
    session: Session, turns: Sequence[Mapping[str, str]], on: Sequence[tuple[DialledChange, Strengths]], asked: Asked
) -> str:
    question = repr(turns[0]["content"] if len(turns) == 1 else [dict(turn) for turn in turns])
    options = _options(asked)
    if not session.chat:
        options["chat"] = False
    if session.system_prompt:
        options["system_prompt"] = session.system_prompt
    said = "".join(f", {key}={value!r}" for key, value in options.items())
    answer = f"print(es.generate(model, tokenizer, [{question}]{said})[0])"
    lines = ["import easyedit_split as es", f"model, tokenizer = es.load_model({_loading(session)})"]
    if not on:
        return "\n".join([*lines, answer])
    attached = ", ".join(_attached(change, strengths) for change, strengths in on)
    return "\n".join([*lines, f"with {attached}:", f"    {answer}"])


def _attached(change: DialledChange, strengths: Strengths) -> str:
    layer = "" if change.layer is None else f", layer={change.layer}"
    turned = f"m={strengths.m1!r}" if _together(strengths) else f"m1={strengths.m1!r}, m2={strengths.m2!r}"
    insisting = ", any_model=True" if change.any_model else ""
    load = "es.load" if change.repository else "es.SteeringArtifact.load"
    return f"{load}({change.home!r}{layer}).attach(model, {turned}{insisting})"


def _which(layer: int | tuple[int, ...] | None) -> list[str]:
    if isinstance(layer, tuple):
        return [f"layers=[{','.join(map(str, layer))}]", "joint=true"]
    return [] if layer is None else [f"layers=[{layer}]"]


def _command(
    session: Session, turns: Sequence[Mapping[str, str]], on: Sequence[tuple[DialledChange, Strengths]], asked: Asked
) -> str:
    if len(turns) > 1 or len(on) > 1 or not all(_together(s) for _, s in on):
        return NO_COMMAND
    words = ["easyedit-split", "generate"]
    for change, strengths in on:
        words += ["--artifact", change.home, "-m", repr(strengths.m1)]
        words += _which(change.layer)
        words += ["--any-model"] if change.any_model else []
    words += [f"--prompt={turns[0]['content']}"]
    words += [f"--temperature={asked.temperature!r}"] if asked.temperature else []
    keys: dict[str, Any] = {"model_name_or_path": _absolute(session.source), "max_new_tokens": asked.max_new_tokens}
    keys |= {"seed": asked.seed} if asked.temperature else {}
    keys |= {} if session.chat else {"use_chat_template": False}
    keys |= {"system_prompt": session.system_prompt} if session.system_prompt else {}
    keys |= _placed(session)
    words += [f"{key}={value if isinstance(value, str) and key != 'system_prompt' else json.dumps(value)}"
              for key, value in keys.items()]  # fmt: skip
    return shlex.join(words)


def _request(
    session: Session, turns: Sequence[Mapping[str, str]], on: Sequence[tuple[DialledChange, Strengths]], asked: Asked
) -> str:
    """How to start the server, and the request: `NAME@m` as its model, several changes in `steer`."""
    names = {id(change): _served_name(change) for change in session.changes}
    steered = [names[id(change)] + _served_strength(change, strengths) for change, strengths in on]
    body: dict[str, Any] = {"model": steered[0] if len(steered) == 1 else "base", "messages": [dict(t) for t in turns]}
    if len(steered) > 1:
        body["vllm_xargs"] = {"steer": steered}
    body |= {"max_tokens": asked.max_new_tokens, "temperature": asked.temperature, "seed": asked.seed}
    sent = shlex.quote(json.dumps(body, ensure_ascii=False))
    artifacts = [f"{names[id(change)]}={change.file}" for change in session.changes]
    serve = shlex.join(["easyedit-split", "serve", *artifacts, "--model", _absolute(session.source)])
    return f"# started with: {serve}\ncurl {SERVER} -H 'Content-Type: application/json' -d {sent}"


def _served_name(change: DialledChange) -> str:
    """The change's name in letters that a server takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", change.name).strip("-._")[:64] or "change"


def _served_strength(change: DialledChange, strengths: Strengths) -> str:
    """`@2.0`, or `@m1=1,m2=0.5`; with `!` past what was swept, where a server would else refuse."""
    low, high = change.range
    past = change.table is not None and not all(low <= m <= high for m in (strengths.m1, strengths.m2))
    said = f"{strengths.m1!r}" if _together(strengths) else f"m1={strengths.m1!r},m2={strengths.m2!r}"
    return f"@{said}{'!' if past else ''}"


def _options(asked: Asked) -> dict[str, Any]:
    options: dict[str, Any] = {"max_new_tokens": asked.max_new_tokens}
    return options | ({"temperature": asked.temperature, "seed": asked.seed} if asked.temperature else {})


def _loading(session: Session) -> str:
    placed = "".join(f", {key}={value!r}" for key, value in _placed(session).items())
    return f"{_absolute(session.source)!r}{placed}"


def _placed(session: Session) -> dict[str, str]:
    """dtype and device, where they are not the usual ones."""
    dtype, device = str(session.model.dtype).removeprefix("torch."), str(session.model.device)
    return {k: v for k, v, usual in (("dtype", dtype, "float32"), ("device", device, "cpu")) if v != usual}


def _absolute(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def _together(strengths: Strengths) -> bool:
    return strengths.m1 == strengths.m2
