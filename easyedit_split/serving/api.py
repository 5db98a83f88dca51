"""Artifacts as models of the OpenAI API: `NAME` and `NAME@2.0` in `model`, next to the unsteered model's own names.

A middleware turns such a model into the unsteered one and the field `steer`. It also refuses a wish to be steered that
vLLM would drop without a word: in the wrong place of a request, with beam search, or at an end point that generates
by other ways.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any

from ..errors import ConfigError, SteeringError
from .catalogue import Catalogue
from .request import FIELD, check_fields, is_asked, resolve

END_POINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
ASKED: ContextVar[str | None] = ContextVar("the model's name in a request", default=None)  # the answer repeats it


class ModelNames:
    """ASGI middleware: see the module."""

    def __init__(self, app: Any, catalogue: Catalogue) -> None:
        self.app, self.catalogue = app, catalogue

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return  # the client hung up
        try:
            served = scope["app"].state.openai_serving_models.base_model_paths[0].name
            asked, body = self.translated(scope["path"], body, served)
        except SteeringError as error:
            await _refuse(send, str(error))
            return
        before = ASKED.set(asked)
        try:
            await self.app(_with_length(scope, body), _replayed(body, receive), send)
        finally:
            ASKED.reset(before)

    def translated(self, path: str, body: bytes, unsteered: str) -> tuple[str | None, bytes]:
        """The steered model's name in a request (None where it names none), and the body as vLLM is to read it.

        `unsteered` is what vLLM calls its model.

        Raises:
            ConfigError: steering is asked for in a way that would not be followed.
        """
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            return None, body  # vLLM says what is wrong with it
        if not isinstance(request, dict):
            return None, body
        for key in request:
            if is_asked(key):
                raise ConfigError(f"{key!r} has its place inside 'vllm_xargs', not beside 'model': move it there")
        extra = request.get("vllm_xargs")
        extra = extra if isinstance(extra, dict) else {}
        name = request.get("model")
        named = isinstance(name, str) and ("@" in name or self.catalogue.find(name) is not None)
        if not named and not any(map(is_asked, extra)):
            return None, body
        check_fields(extra)
        if path not in END_POINTS:
            raise ConfigError(f"{path} does not steer: use one of {', '.join(END_POINTS)}")
        if request.get("use_beam_search"):
            raise ConfigError("beam search cannot be steered: leave use_beam_search out")
        if not named:
            return None, body
        if any(map(is_asked, extra)):
            raise ConfigError(f"steering is asked for twice, by 'model' and by {FIELD!r}: use one of them")
        resolve(self.catalogue, name, prompt_length=1)
        request["model"], request["vllm_xargs"] = unsteered, {**extra, FIELD: name}
        return name, json.dumps(request).encode()


def add_models(models: Any, catalogue: Catalogue) -> Any:
    """vLLM's list of models, and every artifact: `NAME`, where a strength is recommended, and `NAME@<a strength>`."""
    from vllm.entrypoints.serve.engine.protocol import ModelCard, ModelPermission

    base = models.data[0]
    for entry in catalogue.entries:
        names = [f"{entry.name}@{entry.recommended or 1.0:.3g}"]
        if entry.recommended is not None:
            names.insert(0, entry.name)
        models.data += [
            ModelCard(id=name, root=entry.name, parent=base.id, max_model_len=base.max_model_len,
                      permission=[ModelPermission()])
            for name in names
        ]  # fmt: skip
    return models


async def _body(receive: Any) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Any) -> Any:
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return left.pop() if left else await receive()

    return replay


def _with_length(scope: Any, body: bytes) -> Any:
    headers = [(key, value) for key, value in scope["headers"] if key != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}


async def _refuse(send: Any, message: str) -> None:
    error = {"message": message, "type": "BadRequestError", "param": FIELD, "code": 400}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
