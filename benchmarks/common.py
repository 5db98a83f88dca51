"""What the benchmarks share: models, pairs, counted products, the matrix rate, and workers that take turns.

Every contender runs in a fresh process of its own, which loads the model, says so, and then runs one round for each
line it reads. The parent hands out rounds in turn (A B C A B C …), so that a busy machine is busy for all of them, and
reports medians. Peak memory is the process's high-water mark above what it held once the model was loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")
FORMS = ("vector", "lora", "local_weight")
RANK = 4
QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
FACTORS = (1.0, 2.0)  # strengths drawn in training


@dataclass(frozen=True)
class Shape:
    """A Qwen2-shaped model, the steered layer, and the pairs: `prompt` tokens, then `answer` tokens either way."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    layer: int
    pairs: int = 64
    prompt: int = 24
    answer: int = 40
    batch: int = 4

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.pairs // self.batch)


SHAPES = {
    "wide": Shape("wide", 8, 256, 1024, 4, 2, 32000, layer=4),
    "deep": Shape("deep", 24, 512, 1408, 8, 2, 8192, layer=12),
    "small": Shape("small", 3, 64, 128, 4, 2, 1000, layer=1, pairs=8),
}


# --- products that must be done ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """Floating-point operations of the matrix products on one packed row (prompt, first answer, second answer)."""

    lower: float
    upper_forward: float
    upper_backward: float
    site: float
    head: float

    def training(self, epochs: int) -> float:
        """A pair's share of a step: the lower blocks run once a run, everything else every time."""
        return self.lower / epochs + self.upper_forward + self.upper_backward + self.site + 2 * self.head

    def scoring(self, values: int) -> float:
        """A pair at `values` strengths."""
        return self.lower + values * (self.upper_forward + self.head)


def count(shape: Shape, form: str = "vector") -> Count:
    """Products of one pair. Blocks from the steered one up run forward on every token of the row; those above it run
    backward to their inputs (weights are frozen). Both answers share the prompt. Attention counts visible keys only."""
    d, f, kv = shape.hidden, shape.intermediate, shape.hidden * shape.kv_heads // shape.heads
    answers = shape.answer - 1  # the last token of an answer is predicted and never an input
    tokens = shape.prompt + 2 * answers
    visible = shape.prompt * (shape.prompt + 1) / 2 + 2 * (answers * shape.prompt + answers * (answers + 1) / 2)
    linear = tokens * 2 * (2 * d * d + 2 * d * kv + 3 * d * f)
    attention = visible * 4 * d
    above = shape.layers - shape.layer - 1
    site = {"vector": 0.0, "lora": 3 * 2.0 * tokens * RANK * (f + d), "local_weight": 2 * 2.0 * tokens * f * d}[form]
    return Count(
        lower=shape.layer * (linear + attention),
        upper_forward=(above + 1) * (linear + attention),
        upper_backward=above * (linear + 2 * attention),
        site=site,
        head=2 * shape.answer * 2.0 * d * shape.vocabulary,
    )


def matrix_rate(seconds: float = 1.0, size: int = 1024) -> float:
    """Median floating-point operations a second of square float32 products, on the threads torch has.

    In processor time, so that what else runs on the machine does not lower it.
    """
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    times, end = [], time.perf_counter() + seconds
    out = a @ b
    while time.perf_counter() < end:
        begin = time.process_time()
        torch.mm(a, b, out=out)
        times.append((time.process_time() - begin) / torch.get_num_threads())
    return 2 * size**3 / statistics.median(times)


# --- the model and the pairs ------------------------------------------------------------------------------------------


def make_tokenizer() -> Any:
    """One token a byte, ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"])
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=template
    )


def make_model(shape: Shape) -> Any:
    """A random float32 model."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_position_embeddings=max(1024, shape.prompt + shape.answer), tie_word_embeddings=False, pad_token_id=259,
        eos_token_id=258, bos_token_id=256,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def make_texts(shape: Shape) -> list[dict[str, str]]:
    """Pairs of exactly `prompt` and `answer` tokens, template and end of turn included."""
    import random

    rng, letters = random.Random(0), "abcdefghijklmnopqrstuvwxyz"
    template = 19  # tokens that the chat template adds to a question

    def text(length: int) -> str:
        return "".join(rng.choice(letters) for _ in range(length))

    return [
        {
            "question": text(shape.prompt - template),
            "matching": text(shape.answer - 1),
            "not_matching": text(shape.answer - 1),
        }
        for _ in range(shape.pairs)
    ]


def make_pairs(shape: Shape) -> Any:
    from easyedit_split.data.pairs import PreferencePair

    return [PreferencePair(**item) for item in make_texts(shape)]


# --- workers ----------------------------------------------------------------------------------------------------------


def resident(key: str = "VmRSS") -> float:
    """This process's memory in MB; `VmHWM` is its high-water mark."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def private_output() -> TextIO:
    """The real standard output; what others print from here on goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(work: Callable[[], Any], check: Callable[[], dict[str, float]] = dict, answers: TextIO | None = None) -> None:
    """The child's side: ready, then one round a line, or what `check` says. Only the answers go to the real standard
    output. Numbers that `work` returns by name are told with the round's own."""
    answers = answers or private_output()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts here
    loaded = resident()
    print(json.dumps({"startup": time.process_time()}), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "check":
            print(json.dumps(check()), file=answers, flush=True)
            continue
        begin, busy = time.perf_counter(), time.process_time()
        own = work()
        took = {"seconds": time.perf_counter() - begin, "busy": time.process_time() - busy}
        own = own if isinstance(own, dict) else {}
        print(json.dumps({**took, "peak": resident("VmHWM") - loaded, "own": own}), file=answers, flush=True)


@dataclass
class Figures:
    """Rounds of one contender: wall and processor seconds, MB above the loaded model, seconds until it was loaded.

    Ratios are of processor time: with one thread it is the wall time of a machine that does nothing else.
    """

    seconds: list[float]
    busy: list[float]
    peak: float
    startup: float = 0.0
    own: dict[str, list[float]] = field(default_factory=dict)

    @property
    def wall(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.busy)


class Worker:
    """A contender in a process of its own."""

    def __init__(
        self,
        name: str,
        script: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        python: str = sys.executable,
    ) -> None:
        self.name, self.figures = name, Figures([], [], 0.0)
        self.log = open(os.environ.get("BENCHMARK_LOG", os.devnull), "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, script, "--worker", name, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.figures.startup = self._read()["startup"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self.process.wait()}: set BENCHMARK_LOG to see why")
        return json.loads(line)

    def _ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._read()

    def check(self) -> dict[str, float]:
        """What came of the last round."""
        return self._ask("check")

    def round(self) -> None:
        answer = self._ask("go")
        self.figures.seconds.append(answer["seconds"])
        self.figures.busy.append(answer["busy"])
        self.figures.peak = max(self.figures.peak, answer["peak"])
        for name, value in answer["own"].items():
            self.figures.own.setdefault(name, []).append(value)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.log.close()


@contextlib.contextmanager
def workers(names: Sequence[str], script: str, arguments: Sequence[str]) -> Iterator[list[Worker]]:
    """Contenders that are ready to run rounds."""
    started: list[Worker] = []
    try:
        for name in names:
            started.append(Worker(name, script, arguments, QUIET))
        yield started
    finally:
        for worker in started:
            worker.close()


def race(names: Sequence[str], script: str, arguments: Sequence[str], rounds: int) -> dict[str, Figures]:
    """Run `rounds` rounds of every contender in turn."""
    with workers(names, script, arguments) as started:
        for _ in range(rounds):
            for worker in started:
                worker.round()
        return {w.name: w.figures for w in started}


def contenders() -> list[str]:
    """Ours, the naive loop, and EasyEdit where `EASYEDIT_HOME` names a checkout."""
    return ["ours", "naive", *(["easyedit"] if os.environ.get("EASYEDIT_HOME") else [])]


# --- printing ---------------------------------------------------------------------------------------------------------


def shape_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--pairs", type=int, help="pairs (default: the shape's 64)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=["ours", "naive", "easyedit"], help="contenders; repeatable")
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def chosen_shapes(arguments: argparse.Namespace) -> list[Shape]:
    names = ["wide", "deep"] if arguments.shape == "all" else [arguments.shape]
    return [replace(SHAPES[n], **({"pairs": arguments.pairs} if arguments.pairs else {})) for n in names]


def machine() -> str:
    """Where and on what: processor, threads, load, versions, commit."""
    import torch
    import transformers

    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"commit {commit}; {cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s), "
        f"load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, transformers {transformers.__version__}"
    )


def describe(shape: Shape) -> str:
    values = asdict(shape)
    return ", ".join(f"{key} {value}" for key, value in values.items() if key != "name")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
