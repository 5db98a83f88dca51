"""Training and sweeping on a GPU: random-weight models of the true Qwen2.5-7B and Gemma-2-9B shapes in bfloat16.

    python benchmarks/gpu.py [--model qwen|gemma|all] [--pairs 500] [--sweep-pairs 200] [--values 41] [--rounds 3]

Vector, layer 14 of Qwen and 20 of Gemma, two epochs of 500 pairs, then a sweep of 200; wall time after loading, median
of the rounds, and the floor: counted products over the bfloat16 matrix rate measured in the same run. The lengths are
drawn from deciles of PowerSeeking's (tokens of prompt, template included, and of each answer).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from common import Shape, count, machine, make_tokenizer, table

# deciles (10% to 90%) over the 642 pairs of PowerSeeking's train.csv, in words and marks, long words counted twice;
# 20 tokens of template are added to a prompt, and the end token to an answer
PROMPTS = (42, 50, 56, 62, 67, 73, 79, 90, 104)
ANSWERS = (11, 13, 17, 18, 20, 23, 26, 31, 40)
SHAPES = {
    "qwen": Shape("Qwen2.5-7B", 28, 3584, 18944, 28, 4, 152064, layer=14, batch=8),
    "gemma": Shape("Gemma-2-9B", 42, 3584, 14336, 16, 8, 256000, layer=20, batch=8),
}


def make_model(name: str) -> Any:
    """Random weights of the true shape, made on the GPU."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = SHAPES[name]
    common = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 8192, "pad_token_id": 259, "eos_token_id": 258, "bos_token_id": 256,
    }  # fmt: skip
    kind = "qwen2" if name == "qwen" else "gemma2"
    more = {"tie_word_embeddings": False} if name == "qwen" else {"head_dim": 256, "query_pre_attn_scalar": 256}
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **common, **more))
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def make_pairs(count_: int, seed: int = 0) -> list[Any]:
    """Pairs of random letters; one token a byte, so that lengths are exact."""
    from easyedit_split.data.pairs import PreferencePair

    rng, template = random.Random(seed), 19

    def text(lengths: tuple[int, ...], less: int) -> str:
        low = rng.randrange(len(lengths) - 1)
        length = rng.randint(lengths[low], lengths[low + 1]) - less
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(length - 1)) + "."

    return [PreferencePair(text(PROMPTS, template), text(ANSWERS, 1), text(ANSWERS, 1)) for _ in range(count_)]


def floor_products(shape: Shape, pairs: list[Any], work: Callable[[Any], float]) -> float:
    """Counted products of pairs of their own lengths; both answers are taken at their mean length."""
    total = 0.0
    for pair in pairs:
        answer = (len(pair.matching) + len(pair.not_matching)) // 2 + 1
        total += work(count(replace(shape, prompt=len(pair.question) + 19, answer=answer)))
    return total


def matrix_rate(size: int = 8192) -> float:
    """bfloat16 floating-point operations a second of square products."""
    import torch

    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(times[5:])


def clocked(work: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median wall seconds, and peak memory in GB above what was there before."""
    import torch

    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times), (torch.cuda.max_memory_allocated() - before) / 2**30


def measure(name: str, args: argparse.Namespace) -> list[list[str]]:
    from easyedit_split import Site, TrainConfig, sweep, train

    shape, tokenizer, model = SHAPES[name], make_tokenizer(), make_model(name)
    pairs = make_pairs(args.pairs)
    tested = make_pairs(args.sweep_pairs, seed=1)
    config = TrainConfig(
        n_epochs=2, batch_size=shape.batch, gradient_accumulation_steps=1, lr=0.01, dropout=0.0, directions=("add",)
    )
    kept: list[Any] = []

    def training() -> None:
        kept[:] = [train(model, tokenizer, pairs, site=Site(shape.layer), form="vector", config=config)]

    def sweeping() -> None:
        factors = [-20 + 40 * i / (args.values - 1) for i in range(args.values)]
        sweep(model, tokenizer, tested, kept[0], factors, "sum")

    rate = matrix_rate()
    floors = (
        floor_products(shape, pairs, lambda c: 2 * c.training(2)) / rate,
        floor_products(shape, tested, lambda c: c.scoring(args.values)) / rate,
    )
    rows = []
    for what, work, floor in (("train", training, floors[0]), ("sweep", sweeping, floors[1])):
        seconds, peak = clocked(work, args.rounds)
        rows.append([
            shape.name, what, f"{floor:.2f}", f"{seconds:.2f}", f"{seconds / floor:.2f}", f"{peak:.1f}",
            f"{rate / 1e12:.0f}",
        ])  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--sweep-pairs", type=int, default=200)
    parser.add_argument("--values", type=int, default=41)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("gpu.py needs a CUDA device, and torch sees none here: nothing was measured.")
        return 0
    print(machine())
    print(f"{torch.cuda.get_device_name()}; {args.pairs} pairs, 2 epochs, vector; {args.sweep_pairs} x {args.values}\n")
    rows = []
    for name in SHAPES if args.model == "all" else (args.model,):
        rows += measure(name, args)
        torch.cuda.empty_cache()
    table(["model", "", "floor s", "wall s", "x floor", "peak GB", "TFLOP/s"], rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
