"""The command `serve` and what it serves over HTTP: one server for all of these, on loopback."""

from __future__ import annotations

import http.client
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from changes import NEW, QUESTIONS, SWEPT, Reference

pytestmark = pytest.mark.vllm

NAMES = ("vector", "lora", "local", "answer_vector", "late_stream")
BODY = {"temperature": 0, "max_tokens": NEW}


@pytest.fixture(scope="module")
def reference(demo: Any, folder: Path) -> Reference:
    return Reference(demo, folder)


class Server:
    def __init__(self, folder: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        command = [
            sys.executable, "-m", "easyedit_split", "serve", *(str(folder / name) for name in NAMES), "--model", "demo",
            "--port", str(self.port), "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "32",
            "--num-gpu-blocks-override", "128",
        ]  # fmt: skip
        with log.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        self._wait("\ncurl ")

    def _wait(self, text: str, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while text not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.2)

    def send(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and answer; `body` is made JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def chat(self, question: str, **more: Any) -> str:
        messages = [{"role": "user", "content": question}]
        status, answer = self.send("/v1/chat/completions", {**BODY, "messages": messages, **more})
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(folder, tmp_path_factory.mktemp("server") / "log.txt")
    yield server
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)


def _want(reference: Reference, name: str, m: float, question: str = QUESTIONS[0]) -> str:
    tokens = reference.answer({name: (m, m)}, question).tokens
    return reference.tokenizer.decode(tokens, skip_special_tokens=True)


def test_every_artifact_is_a_model(server: Server) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/models") as answer:
        models = [model["id"] for model in json.loads(answer.read())["data"]]
    assert models[0] == "base" and SWEPT in models and "lora@1" in models
    for model in models:
        assert server.chat(QUESTIONS[0], model=model) is not None


@pytest.mark.parametrize("m", [0, 0.5, 2, -1])
@pytest.mark.parametrize("name", NAMES)
def test_both_ways_of_asking_give_attach_s_answer(server: Server, reference: Reference, name: str, m: float) -> None:
    want = _want(reference, name, m)
    assert server.chat(QUESTIONS[0], model=f"{name}@{m}") == want
    assert server.chat(QUESTIONS[0], model="base", vllm_xargs={"steer": f"{name}@{m}"}) == want
    assert server.chat(QUESTIONS[0], vllm_xargs={"steer": [f"{name}@{m}"]}) == want


def test_the_printed_curl_works(server: Server) -> None:
    line = next(line for line in server.log.read_text().splitlines() if line.startswith("curl "))
    done = subprocess.run([*shlex.split(line), "-s"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["model"] == SWEPT


def test_every_end_point_that_steers_does(server: Server, reference: Reference) -> None:
    question, want = QUESTIONS[0], _want(reference, "lora", 2)
    text = reference.tokenizer.decode(reference.prompt(question))
    messages = [{"role": "user", "content": question}]
    asked: dict[str, dict[str, Any]] = {
        "/v1/completions": {**BODY, "prompt": text, "add_special_tokens": False},
        "/v1/responses": {"temperature": 0, "max_output_tokens": NEW, "input": question},
        "/v1/messages": {**BODY, "messages": messages},
        "/v1/chat/completions": {**BODY, "messages": messages},
    }
    for path, body in asked.items():
        status, answer = server.send(path, {**body, "model": "lora@2"})
        assert status == 200 and answer["model"] == "lora@2", answer
        assert json.dumps(want)[1:-1] in json.dumps(answer), (path, answer)


def test_a_stream_is_steered(server: Server, reference: Reference) -> None:
    body = {**BODY, "model": "lora@2", "stream": True, "messages": [{"role": "user", "content": QUESTIONS[0]}]}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    lines = [line[6:] for line in connection.getresponse().read().decode().splitlines() if line.startswith("data: {")]
    text = "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)
    assert text == _want(reference, "lora", 2)


CHAT = {**BODY, "messages": [{"role": "user", "content": QUESTIONS[0]}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "model": "vectr@2"}), ("/v1/chat/completions", {**CHAT, "model": "vector@x"}),
        ("/v1/chat/completions", {**CHAT, "model": "vector@7"}), ("/v1/chat/completions", {**CHAT, "model": "lora"}),
        ("/v1/chat/completions", {**CHAT, "vllm_xargs": {"steer": "vectr@2"}}),
        ("/v1/chat/completions", {**CHAT, "vllm_xargs": {"steer": 2.0}}),
        ("/v1/chat/completions", {**CHAT, "vllm_xargs": {"steer": {"lora": 2.0}}}),
        ("/v1/chat/completions", {**CHAT, "vllm_xargs": {"Steer": "lora@2"}}),
        ("/v1/chat/completions", {**CHAT, "vllm_xargs": {"steer.resolved": "lora@2"}}),
        ("/v1/chat/completions", {**CHAT, "steer": "lora@2"}),
        ("/v1/chat/completions", {**CHAT, "model": "lora@2", "vllm_xargs": {"steer": "lora@2"}}),
        ("/v1/chat/completions", {**CHAT, "model": "lora@2", "use_beam_search": True, "n": 2}),
        ("/v1/completions", {**BODY, "prompt": "A", "vllm_xargs": {"steer": "lora@2"}, "use_beam_search": True}),
        ("/v1/chat/completions/batch", {**BODY, "model": "lora@2", "messages": [CHAT["messages"]]}),
        ("/generative_scoring", {"model": "lora@2", "query": "A", "items": ["B"], "label_token_ids": [1]}),
        ("/inference/v1/generate", {"model": "lora@2", "token_ids": [1, 2], "sampling_params": {}}),
    ],
)  # fmt: skip
def test_a_wrong_request_is_a_400_of_one_sentence(server: Server, path: str, body: Any) -> None:
    status, answer = server.send(path, body)
    assert status == 400 and 10 < len(answer["error"]["message"]) < 600, (status, answer)


def _scrambled(draw: random.Random) -> bytes:
    """A request with something wrong in it, mostly."""
    pieces = ["vector", "lora", "@", "2", "-1", ".5", "e9", "!", ",", "m1=", "m2=", "nan", "inf", " ", "\0", "😀", '"']
    text = "".join(draw.choices(pieces, k=draw.randrange(7)))
    value: Any = draw.choice([text, [text, text], [], {}, None, True, 3, {"lora": text}, [[text]], text * 500])
    body: dict[str, Any] = {**CHAT, "max_tokens": 1}
    if draw.random() < 0.4:
        body["model"] = value
    else:
        place = draw.choice(["vllm_xargs", "vllm_xargs", "steer"])
        body[place] = {draw.choice(["steer", "steer", "Steer", text]): value}
    data = json.dumps(body).encode()
    if draw.random() < 0.1:
        data = data[: draw.randrange(len(data))]
    return data


def test_a_few_hundred_scrambled_requests_harm_nothing(server: Server, reference: Reference) -> None:
    draw = random.Random(0)
    requests = [_scrambled(draw) for _ in range(400)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: server.send("/v1/chat/completions", body), requests))
    counts = {status: sum(s == status for s, _ in answers) for status in {s for s, _ in answers}}
    assert set(counts) <= {200, 400, 404, 422} and counts[400] > 100, counts
    assert server.chat(QUESTIONS[0], model="lora@2") == _want(reference, "lora", 2)


def test_a_client_that_hangs_up_harms_nobody(server: Server, reference: Reference) -> None:
    body = json.dumps({**CHAT, "model": "lora@2", "stream": True, "max_tokens": 400, "ignore_eos": True})
    for _ in range(8):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        connection.getresponse().read(200)
        connection.close()
    assert server.chat(QUESTIONS[0], model="vector@2") == _want(reference, "vector", 2)


def test_many_clients_at_once_get_each_their_own_answer(server: Server, reference: Reference) -> None:
    draw = random.Random(1)
    cells = [(draw.choice(NAMES), draw.choice((0, 0.5, 2, -1)), draw.choice(QUESTIONS)) for _ in range(100)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda cell: server.chat(cell[2], model=f"{cell[0]}@{cell[1]}"), cells))
    assert answers == [_want(reference, name, m, question) for name, m, question in cells]


def test_a_thousand_requests_at_32_at_a_time(server: Server, reference: Reference) -> None:
    """Random artifacts, strengths and lengths: each answer is a beginning of `attach`'s.

    Memory of the processes that take requests and plan steps is flat. The worker's grows for a while, steered or not:
    its kernels keep something for every new number of tokens in a step.
    """
    draw = random.Random(2)
    cells = [
        (draw.choice(NAMES), draw.choice((0, 0.5, 2, -1)), draw.choice(QUESTIONS), draw.randint(1, NEW))
        for _ in range(1000)
    ]

    def ask(cell: Any) -> str:
        return server.chat(cell[2], model=f"{cell[0]}@{cell[1]}", max_tokens=cell[3])

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, cells[:300]))  # warm
        before = _memory(server.process.pid)
        answers = list(pool.map(ask, cells))
        after = _memory(server.process.pid)
    for found, (name, m, question, new) in zip(answers, cells, strict=True):
        tokens = reference.answer({name: (m, m)}, question).tokens[:new]
        assert found == reference.tokenizer.decode(tokens, skip_special_tokens=True), (name, m, question, new)
    for process, (name, size) in before.items():
        assert after[process][1] - size < (256 if "Worker" in name else 8), (name, before, after)


def _memory(root: int) -> dict[int, tuple[str, int]]:
    """Name and MiB of its own that each process from `root` down holds."""
    found = {}
    for pid in (root, *_descendants(root)):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        found[pid] = status["Name"].strip(), int(status["RssAnon"].split()[0]) // 1024
    return found


def test_it_listens_to_this_machine_only(server: Server) -> None:
    listening = subprocess.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True, check=False)
    port = f"{server.port:04X}"
    hosts = {
        line.split()[1].split(":")[0] for line in listening.stdout.splitlines()[1:]
        if line.split()[1].endswith(f":{port}") and line.split()[3] == "0A"
    }  # fmt: skip
    assert hosts == {"0100007F"}


def test_control_c_ends_it(server: Server) -> None:
    """Last: afterwards the server is gone, with all of its processes."""
    children = _descendants(server.process.pid)
    assert len(children) >= 2
    threading.Timer(0.1, server.process.send_signal, [signal.SIGINT]).start()
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text()
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def _descendants(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            child = int(status.parent.name)
            found += [child, *_descendants(child)]
    return found


def test_what_cannot_be_served_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "easyedit_split", "serve", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    lora = str(folder / "lora")
    assert "does not hold an artifact" in said(str(tmp_path), "--model", "demo")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert "is taken by another program" in said(lora, "--model", "demo", "--port", port)
    assert "is no port" in said(lora, "--model", "demo", "--port=x")
    assert "is set by serve itself" in said(lora, "--model", "demo", "--additional-config", "{}")
    (tmp_path / "other").mkdir()
    config = {"model_type": "llama", "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 3}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    assert "was made for a model whose architecture is qwen2" in said(lora, "--model", str(tmp_path / "other"))
