"""Changes of the demo model for the tests: every form, several sites, every rule of positions; and the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from swept import write_sweep
from tiny import random_delta

from easyedit_split import SteeringArtifact
from easyedit_split.changes.forms import Joint, make_delta
from easyedit_split.changes.positions import Positions
from easyedit_split.data.tokens import Encoder
from easyedit_split.models.identity import describe_model
from easyedit_split.models.sites import Site, Sites, resolve_site

NEW = 16  # tokens of an answer
# name: form, site, positions, size of the random change
CHANGES = {
    "vector": ("vector", Site(3), Positions(), 3.0),
    "lora": ("lora", Site(3), Positions(), 0.6),
    "local": ("local_weight", Site(3), Positions(), 0.5),
    "stream": ("vector", Site(2, "residual"), Positions(), 2.0),
    "query": ("lora", Site(1, "self_attn.q_proj"), Positions(), 1.0),
    "value": ("vector", Site(2, "self_attn.v_proj"), Positions(), 3.0),
    "up": ("local_weight", Site(2, "mlp.up_proj"), Positions(), 0.5),
    "out": ("vector", Site(4, "self_attn.o_proj"), Positions(), 3.0),
    "answer_vector": ("vector", Site(3), Positions("answer"), 3.0),
    "answer_local": ("local_weight", Site(2), Positions("answer"), 0.5),
    "late_lora": ("lora", Site(3), Positions("after_prefix", 5), 0.6),
    "late_stream": ("vector", Site(2, "residual"), Positions("after_prefix", 3), 2.0),
    "layers": ("lora", Sites((Site(1, "self_attn.q_proj"), Site(1, "self_attn.v_proj"), Site(3))), Positions(), 0.4),
    "answer_layers": ("vector", Sites((Site(1, "residual"), Site(2, "residual"))), Positions("answer"), 1.0),
}
JOINT = ("layers", "answer_layers")  # of several layers, with one strength
SWEPT = "vector"  # has a sweep, from -6 to 6
QUESTIONS = (
    "Write a review of the new phone.",
    "What do you think of the sofa?",
    "Write a review of the new phone. " * 16 + "What do you think of it?",
    "Write a review of the new phone. " * 16 + "Is it good?",
    "Tell me about the film, the food, the hotel, and the sofa. " * 7,
)


def write_artifacts(model: Any, folder: Path) -> Path:
    for seed, (name, (form, site, positions, size)) in enumerate(CHANGES.items()):
        places = [resolve_site(model, one) for one in site.sites]
        parts = [make_delta(form, place.d_in, place.d_out, rank=4) for place in places]
        delta = random_delta(parts[0] if len(parts) == 1 else Joint(parts), size, seed)
        SteeringArtifact(delta, site, positions, describe_model(model)).save(folder / name)
    write_sweep(SteeringArtifact.load(folder / SWEPT), folder / SWEPT / "sweep.parquet")
    return folder


@dataclass(frozen=True)
class Answer:
    """Greedy tokens, and the log-probability of each."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


class Reference:
    """Answers by `attach` and the model's own `generate`, computed once each."""

    def __init__(self, demo: Any, folder: Path) -> None:
        self.model, self.tokenizer = demo
        self.encoder = Encoder(self.tokenizer, True, "")
        self.artifacts = {path.name: SteeringArtifact.load(path) for path in folder.iterdir()}
        self._known: dict[Any, Answer] = {}

    def prompt(self, question: str) -> list[int]:
        return self.encoder.prompt(question)

    def answer(self, strengths: Mapping[str, tuple[float, float]], question: str, new: int = NEW) -> Answer:
        """`strengths` maps a name to its (m1, m2)."""
        key = (tuple(sorted(strengths.items())), question, new)
        if key not in self._known:
            self._known[key] = self._computed(strengths, question, new)
        return self._known[key]

    def _computed(self, strengths: Mapping[str, tuple[float, float]], question: str, new: int) -> Answer:
        ids = torch.tensor([self.prompt(question)])
        with contextlib.ExitStack() as stack, torch.no_grad():
            for name, (m1, m2) in strengths.items():
                stack.enter_context(self.artifacts[name].attach(self.model, m1=m1, m2=m2))
            found = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, use_cache=True,
                eos_token_id=self.encoder.stop_ids(), pad_token_id=self.tokenizer.pad_token_id,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        tokens = found.sequences[0, ids.shape[1] :].tolist()
        logprobs = [float(row[0].float().log_softmax(-1)[t]) for row, t in zip(found.logits, tokens, strict=True)]
        return Answer(tuple(tokens), tuple(logprobs))


def answers_of(outputs: Sequence[Any]) -> list[Answer]:
    """vLLM's outputs (asked with `logprobs=0`) as answers."""
    found = []
    for output in outputs:
        one = output.outputs[0]
        chosen = [step[token].logprob for token, step in zip(one.token_ids, one.logprobs, strict=True)]
        found.append(Answer(tuple(one.token_ids), tuple(chosen)))
    return found


def farthest(first: Answer, second: Answer) -> float:
    """Largest difference of two equal answers' log-probabilities."""
    return max((abs(a - b) for a, b in zip(first.logprobs, second.logprobs, strict=True)), default=0.0)
