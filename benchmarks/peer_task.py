"""What every contender gets: a model folder, pairs as text and as tokens, and the plain way to score a steered model.

Nothing here needs this package, so that it runs in every peer's environment. Losses of all contenders on the same test
pairs come from `answer_losses`: the model's own logits, one answer at a time, whatever steers the model meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pair:
    """A pair as text and as token ids: the prompt is rendered with the chat template, answers end their turn."""

    question: str
    matching: str
    not_matching: str
    prompt_text: str
    end_text: str
    prompt: list[int]
    matching_ids: list[int]
    not_matching_ids: list[int]

    def ids(self, which: str) -> list[int]:
        return getattr(self, f"{which}_ids")

    def text(self, which: str) -> str:
        """Prompt, answer and end of turn."""
        return self.prompt_text + getattr(self, which) + self.end_text


@dataclass(frozen=True)
class Task:
    """One row's work, at one size."""

    folder: str
    layer: int
    train: list[Pair]
    test: list[Pair]
    form: str
    epochs: int
    batch: int
    prompts: int
    tokens: int
    points: int

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: str | Path) -> Task:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        for part in ("train", "test"):
            values[part] = [Pair(**pair) for pair in values[part]]
        return Task(**values)


ANSWERS = ("matching", "not_matching")
LR, RANK, STRENGTHS = 0.01, 4, (1.0, 2.0)
SPLIT = {"lambda_p": 1.0, "lambda_n": 0.3, "gamma": 3.5, "theta": 0.6}


def plain_model(task: Task) -> tuple[Any, Any]:
    """The model, frozen, and its tokenizer, as transformers loads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(task.folder, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer: Any = AutoTokenizer.from_pretrained(task.folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def padded(rows: list[list[int]], pad: int, left: bool = False) -> tuple[Any, Any]:
    """Token ids `(R, T)` and the mask of what is no padding."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return ids, mask


def labelled(pairs: list[Pair], which: str, pad: int) -> tuple[Any, Any, Any]:
    """Ids, mask and labels `(R, T)` of one answer of each pair; -100 where nothing is predicted."""
    ids, mask = padded([[*pair.prompt, *pair.ids(which)] for pair in pairs], pad)
    labels = ids.masked_fill(mask == 0, -100)
    for row, pair in enumerate(pairs):
        labels[row, : len(pair.prompt)] = -100
    return ids, mask, labels


def mean_losses(logits: Any, labels: Any) -> Any:
    """`(R,)` token means, in nats."""
    import torch.nn.functional as F

    flat = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none")
    return flat.view(len(labels), -1).sum(1) / (labels[:, 1:] != -100).sum(1)


def split_loss(wanted: Any, unwanted: Any) -> Any:
    """`(B,)`: the paper's Eqs. 18 to 20."""
    import torch

    hinge = torch.relu(SPLIT["theta"] - (unwanted - wanted))
    return SPLIT["lambda_p"] * wanted + SPLIT["lambda_n"] * unwanted + SPLIT["gamma"] * hinge


def answer_losses(forward: Callable[[Any], Any], pairs: list[Pair]) -> dict[str, float]:
    """Mean over pairs of each answer's token mean, in nats. `forward` gives logits `(1, T, V)` for ids `(1, T)`."""
    import torch

    found = {}
    with torch.no_grad():
        for which in ANSWERS:
            rows = [labelled([pair], which, 0) for pair in pairs]
            found[which] = float(torch.cat([mean_losses(forward(ids), labels) for ids, _, labels in rows]).mean())
    return found


def plain_forward(model: Any) -> Callable[[Any], Any]:
    return lambda ids: model(input_ids=ids, use_cache=False).logits


def with_hook(model: Any, layer: int, add: Callable[[Any, Any], Any], component: str = "mlp") -> Any:
    """`add(output, input)` replaces the output of the layer's down projection, or of its block."""
    block = model.model.layers[layer]
    module = block.mlp.down_proj if component == "mlp" else block

    def hook(_module: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (add(output[0], inputs[0]), *output[1:])
        return add(output, inputs[0])

    return module.register_forward_hook(hook)


def seeded_vector(width: int, scale: float) -> Any:
    """The same vector in every process, of about `scale` a component."""
    import torch

    return torch.randn(width, generator=torch.Generator().manual_seed(0)) * scale


def linear_rate(optimizer: Any, step: int, steps: int) -> None:
    """The schedule of all training contenders: linear to zero."""
    for group in optimizer.param_groups:
        group["lr"] = LR * (1 - step / steps)


@dataclass(frozen=True)
class Contender:
    """`work` is one round; it may return figures of its own, by name. `check` says what came of the last round."""

    work: Callable[[], dict[str, float] | None]
    check: Callable[[], dict[str, float]]
