"""Serving with vLLM: tokens a second and time to the first token, unsteered and steered, over HTTP on loopback.

    OMP_NUM_THREADS=1 python benchmarks/serve.py [--model demo|smollm2|FOLDER] [--clients 1 8 32] [--minutes 4]

Two servers: stock vLLM without the plugin, and `easyedit-split serve` with one change of each form (random, at the
feed-forward of the middle block). Loads take turns: unsteered without the plugin, unsteered with it, and for each form
all requests at one strength and all at different ones; then without the plugin once more. A load is a number of
streamed requests of `--tokens` tokens from so many clients at once, with prompts of several lengths. The number is the
same for every load, found while warming up, so that all of it takes about `--minutes` and the start of two servers;
a machine too slow for that does fewer rounds.
Costs are ratios within a round to the mean of the two loads without the plugin: medians over rounds, and quartiles.
What two equal loads differ by is in the table, too: stock vLLM's second load to its first. Processor time is that of
all of a server's processes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import FORMS, RANK, machine, table

QUESTION = "Write a review of the new phone."
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """One round of one load: tokens a second, milliseconds to the first token (median), processor ms a token."""

    rate: float
    first: float
    processor: float


def write_changes(model_name: str, folder: Path) -> list[str]:
    """A random change of each form for the middle block."""
    import torch

    from easyedit_split import Site, SteeringArtifact, load_model
    from easyedit_split.changes.forms import make_delta
    from easyedit_split.models.identity import describe_model
    from easyedit_split.models.sites import resolve_site

    model, _ = load_model(model_name)
    about = describe_model(model)
    site = Site(about["layers"] // 2)
    place = resolve_site(model, site)
    generator = torch.Generator().manual_seed(0)
    for form in FORMS:
        delta = make_delta(form, place.d_in, place.d_out, RANK)
        with torch.no_grad():
            for parameter in delta.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.01)
        SteeringArtifact(delta.requires_grad_(False), site, model=about).save(folder / form)
    return [str(folder / form) for form in FORMS]


@contextmanager
def server(command: list[str], environment: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A server's port and process id, once it is ready; ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            while not _ready(port):
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read()[-3000:])
                time.sleep(0.5)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def processor_seconds(root: int) -> float:
    """Processor time so far of a process and everything below it."""
    parents, spent = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        parents[int(path.parent.name)] = int(fields[1])
        spent[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    total, below = 0.0, {root}
    while below:
        total += sum(spent.get(pid, 0.0) for pid in below)
        below = {pid for pid, parent in parents.items() if parent in below}
    return total


def run(port: int, pid: int, model: Callable[[int], str], clients: int, requests: int, tokens: int) -> Load:
    before, begin = processor_seconds(pid), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        first = list(pool.map(lambda k: ask(port, model(k), 1 + k % 5, tokens), range(requests)))
    seconds, total = time.monotonic() - begin, requests * tokens
    return Load(total / seconds, 1e3 * statistics.median(first), 1e3 * (processor_seconds(pid) - before) / total)


def requests_in(port: int, pid: int, clients: int, tokens: int, seconds: float) -> int:
    """How many requests take about so long, at least one a client; the first, slow ones are not counted."""
    run(port, pid, lambda _: "base", clients, clients, tokens)
    return max(clients, round(seconds * run(port, pid, lambda _: "base", clients, clients, tokens).rate / tokens))


def ask(port: int, model: str, length: int, tokens: int) -> float:
    """Seconds to the first token of a streamed answer, which is read to its end."""
    body = {
        "model": model, "messages": [{"role": "user", "content": " ".join([QUESTION] * length)}], "stream": True,
        "max_tokens": tokens, "ignore_eos": True, "temperature": 0,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    begin = time.monotonic()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer, first = connection.getresponse(), 0.0
    assert answer.status == 200, answer.read()
    for line in answer:
        if not first and b'"content":"' in line and b'"content":""' not in line:
            first = time.monotonic() - begin
    connection.close()
    return first


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=4.0)
    arguments, passed_on = parser.parse_known_args()
    print(machine())
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, passed_on, Path(folder))


def commands(model: str, folder: Path, passed_on: list[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """Stock vLLM's command, the plugin's, and the environment of the first."""
    from easyedit_split.models.loading import folder_of
    from easyedit_split.serving.launch import environment

    same = ["--dtype", "float32", *passed_on]
    stock = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(folder_of(model)),
        "--host", "127.0.0.1", "--served-model-name", "base", *same,
    ]  # fmt: skip
    ours = [sys.executable, "-m", "easyedit_split", "serve", *write_changes(model, folder), "--model", model, *same]
    (folder / "name").mkdir()
    return stock, ours, {**environment(folder / "name", small=False), "VLLM_PLUGINS": ""}


def measure(arguments: Any, passed_on: list[str], folder: Path) -> None:
    loads: dict[str, Callable[[int], str]] = {"unsteered": lambda k: "base"}
    for form in FORMS:
        loads[f"{form}, one strength"] = lambda k, form=form: f"{form}@1.5"
        loads[f"{form}, each its own"] = lambda k, form=form: f"{form}@{0.5 + k / 50}"
    count = len(arguments.clients) * (arguments.rounds + 1) * (len(loads) + 2)
    stock, ours, variables = commands(arguments.model, folder, passed_on)
    with server(stock, variables) as plain, server(ours, dict(os.environ)) as steered:
        for clients in arguments.clients:
            end = time.monotonic() + 60 * arguments.minutes / len(arguments.clients)
            requests = requests_in(*plain, clients, arguments.tokens, 60 * arguments.minutes / count)
            sizes = clients, requests, arguments.tokens
            rounds: list[tuple[Load, dict[str, Load], Load]] = []
            while len(rounds) < 2 or len(rounds) <= arguments.rounds and time.monotonic() < end:  # the first warms up
                first = run(*plain, lambda _: "base", *sizes)
                found = {name: run(*steered, model, *sizes) for name, model in loads.items()}
                rounds.append((first, found, run(*plain, lambda _: "base", *sizes)))
            print(f"\n{clients} clients, {requests} requests a load, {len(rounds) - 1} rounds")
            show(rounds[1:])


def show(rounds: list[tuple[Load, dict[str, Load], Load]]) -> None:
    plain = [mean(first, last) for first, _, last in rounds]
    rows = [row("without the plugin", plain, None)]
    rows.append(row("the same, again", [last for *_, last in rounds], [first for first, *_ in rounds]))
    rows += [row(name, [found[name] for _, found, _ in rounds], plain) for name in rounds[0][1]]
    heads = ["load", "tokens/s", "first token ms", "processor ms a token", "more processor time", "more wall time"]
    table(heads, rows)


def mean(a: Load, b: Load) -> Load:
    return Load((a.rate + b.rate) / 2, (a.first + b.first) / 2, (a.processor + b.processor) / 2)


def row(name: str, found: list[Load], plain: list[Load] | None) -> list[str]:
    middle = [statistics.median(getattr(load, key) for load in found) for key in ("rate", "first", "processor")]
    figures = [f"{middle[0]:.0f}", f"{middle[1]:.0f}", f"{middle[2]:.3f}"]
    if plain is None:
        return [name, *figures, "", ""]
    pairs = list(zip(found, plain, strict=True))
    costs = [[a.processor / b.processor - 1 for a, b in pairs], [b.rate / a.rate - 1 for a, b in pairs]]
    return [name, *figures, *map(spread, costs)]


def spread(values: list[float]) -> str:
    """Median and quartiles."""
    if len(values) < 2:
        return f"{values[0]:+.1%}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:+.1%} ({low:+.1%} to {high:+.1%})"


if __name__ == "__main__":
    main()
