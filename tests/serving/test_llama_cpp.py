"""llama.cpp's own server gives the answers of `attach`, with the adapters and control vectors that are exported to it.

Everything is in float32 (weights, keys and values), so what is left between the two is the order of sums and
llama.cpp's own exponential: log-probabilities agree within `NOISE` nats, steered or not.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from changes import NEW, QUESTIONS, Answer, Reference, farthest, write_artifacts
from tiny import tiny_model

pytest.importorskip("gguf")
from gguf_files import save_gguf

from easyedit_split.formats.gguf import to_gguf
from easyedit_split.formats.gguf_adapter import to_gguf_adapter

SERVER = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
pytestmark = [
    pytest.mark.llama_cpp,
    pytest.mark.skipif(SERVER is None, reason="no llama-server on PATH, nor named by LLAMA_SERVER"),
]

NOISE = 1e-4
STRENGTHS = (0.0, 0.5, 2.0, -1.0)
LORAS = ("lora", "query", "layers")
WEIGHTS = ("local", "up")
EXACT = ("--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32")


class Server:
    """A server that runs; `adapters` are its LoRA adapters' names, by their ids."""

    def __init__(self, port: int, adapters: Sequence[str]) -> None:
        self.port, self.adapters = port, list(adapters)

    def send(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def scales(self, strengths: Mapping[str, float]) -> list[dict[str, float]]:
        """`lora` of a request; never left out, for then the server's own scales and any cached prefix are used."""
        return [{"id": i, "scale": strengths.get(name, 0.0)} for i, name in enumerate(self.adapters)]

    def answer(self, prompt: list[int], strengths: Mapping[str, float], **more: Any) -> Answer:
        body = {"prompt": prompt, "n_predict": NEW, "temperature": 0, "n_probs": 1, **more}
        found = self.send("/completion", {**body, "lora": self.scales(strengths)})["completion_probabilities"]
        return Answer(tuple(one["id"] for one in found), tuple(one["logprob"] for one in found))


@contextmanager
def server(model: Path, log: Path, *options: str, adapters: Mapping[str, Path] | None = None) -> Iterator[Server]:
    adapters = adapters or {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(SERVER), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "--threads", "1", "--offline",
        "--ctx-size", "4096", *EXACT, "--cache-ram", "0", *options,
        *(["--lora", ",".join(map(str, adapters.values()))] if adapters else []),
    ]  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not _is_ready(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.1)
        yield Server(port, list(adapters))
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _check(found: Answer, want: Answer, about: Any) -> None:
    """Equal, but for the end of a text, which llama.cpp does not always give back as a token."""
    tokens, logprobs = want.tokens[: len(found.tokens)], want.logprobs[: len(found.tokens)]
    assert len(want.tokens) - len(found.tokens) <= 1, about
    assert found.tokens == tokens, about
    assert farthest(found, Answer(tokens, logprobs)) < NOISE, (about, farthest(found, Answer(tokens, logprobs)))


@pytest.fixture(scope="module")
def reference(demo: Any, folder: Path) -> Reference:
    return Reference(demo, folder)


@pytest.fixture(scope="module")
def model(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("model") / "demo.gguf", *demo)


@pytest.fixture(scope="module")
def steered(model: Path, reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with every adapter."""
    there = tmp_path_factory.mktemp("adapters")
    adapters = {name: to_gguf_adapter(reference.artifacts[name], there / f"{name}.gguf").path for name in LORAS}
    whole = {"energy": 1.0, "without_db": True}
    adapters |= {n: to_gguf_adapter(reference.artifacts[n], there / f"{n}.gguf", **whole).path for n in WEIGHTS}
    with server(model, there / "log.txt", adapters=adapters) as started:
        yield started


def test_unsteered_it_is_the_model(steered: Server, reference: Reference) -> None:
    for question in QUESTIONS:
        _check(steered.answer(reference.prompt(question), {}), reference.answer({}, question), question)


def test_a_request_s_scale_is_the_strength(steered: Server, reference: Reference) -> None:
    """LoRA and the `dW` of local weights, requests of all strengths at once, twice."""
    cells = list(itertools.product((*LORAS, *WEIGHTS), STRENGTHS, QUESTIONS)) * 2
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda c: steered.answer(reference.prompt(c[2]), {c[0]: c[1]}), cells))
    for found, (name, m, question) in zip(answers, cells, strict=True):
        want = reference.answer({name: (m, 0.0 if name in WEIGHTS else m)}, question)
        _check(found, want, (name, m, question))
        plain = reference.answer({}, question)
        assert (want.tokens != plain.tokens or farthest(want, plain) > 20 * NOISE) == (m != 0), (name, m, question)


def test_one_at_a_time_no_cached_prefix_is_of_another_strength(steered: Server, reference: Reference) -> None:
    """With the cache of prompts in memory (`--cache-ram`) 15 of 150 such requests were answered wrongly."""
    draw = random.Random(0)
    for _ in range(60):
        m, question = draw.choice(STRENGTHS), draw.choice(QUESTIONS)
        _check(steered.answer(reference.prompt(question), {"lora": m}), reference.answer({"lora": (m, m)}, question), m)


def test_two_adapters_each_at_its_own_scale(steered: Server, reference: Reference) -> None:
    for question in QUESTIONS:
        found = steered.answer(reference.prompt(question), {"lora": 2.0, "query": -1.0})
        _check(found, reference.answer({"lora": (2.0, 2.0), "query": (-1.0, -1.0)}, question), question)


def test_the_chat_end_point_takes_the_scale(steered: Server, reference: Reference) -> None:
    for m, question in itertools.product(STRENGTHS, QUESTIONS):
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": NEW}
        answer = steered.send("/v1/chat/completions", {**body, "lora": steered.scales({"lora": m})})
        want = reference.answer({"lora": (m, m)}, question).tokens
        text = reference.tokenizer.decode(want, skip_special_tokens=True)
        assert answer["choices"][0]["message"]["content"] == text, (m, question)


@pytest.mark.parametrize("m", [0.5, 2.0, -1.0])
def test_a_control_vector_is_the_vector(model: Path, reference: Reference, tmp_path: Path, m: float) -> None:
    """At a block's output and at the feed-forward that ends in it, and one of several layers: two scaled as given, and
    one exported at the strength itself."""
    for name in ("stream", "vector"):
        path = to_gguf(reference.artifacts[name], tmp_path / f"{name}.gguf")
        with server(model, tmp_path / "log.txt", "--control-vector-scaled", f"{path}:{m}") as started:
            for question in QUESTIONS:
                want = reference.answer({name: (m, m)}, question)
                _check(started.answer(reference.prompt(question), {}), want, (name, m, question))


@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral"])
def test_other_families(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    """A random model of each: adapters on its feed-forward, and on rotated maps, and a control vector."""
    tiny = tiny_model(kind, layers=6)
    names = ("lora", "query", "layers")
    folder = write_artifacts(tiny, tmp_path / "artifacts")
    reference = Reference((tiny, tokenizer), folder)
    adapters = {n: to_gguf_adapter(reference.artifacts[n], tmp_path / f"{n}.gguf", model=tiny).path for n in names}
    model = save_gguf(tmp_path / "model.gguf", tiny)
    vector = to_gguf(reference.artifacts["stream"], tmp_path / "v.gguf")
    with server(model, tmp_path / "log.txt", adapters=adapters) as started:
        for name, m, question in itertools.product(names, STRENGTHS, QUESTIONS[:2]):
            found = started.answer(reference.prompt(question), {name: m})
            _check(found, reference.answer({name: (m, m)}, question), (name, m, question))
    with server(model, tmp_path / "log.txt", "--control-vector-scaled", f"{vector}:2.0") as started:
        found = started.answer(reference.prompt(QUESTIONS[0]), {})
        _check(found, reference.answer({"stream": (2.0, 2.0)}, QUESTIONS[0]), kind)
