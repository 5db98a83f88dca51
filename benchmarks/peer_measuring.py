"""Contenders that measure or apply: DiffMean vectors, sweeps over strengths, generation, the layer search."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from peer_task import (
    ANSWERS,
    LR,
    RANK,
    SPLIT,
    STRENGTHS,
    Contender,
    Pair,
    Task,
    answer_losses,
    padded,
    plain_forward,
    plain_model,
    seeded_vector,
    with_hook,
)
from peer_training import longest, texts_of

VECTOR_SCALE = 0.1  # of the vector that is swept
STILL_SCALE = 1e-6  # of the vector that generation is steered with: the texts stay the unsteered model's
STARTS = 8.0  # a sweep goes from minus to plus this


def package_pairs(pairs: list[Pair]) -> list[Any]:
    from easyedit_split import PreferencePair

    return [PreferencePair(p.question, p.matching, p.not_matching) for p in pairs]


def steering(model: Any, task: Task, vector: Any) -> dict[str, float]:
    """Losses on the test pairs with `vector` added to the layer's output; vectors are compared at norm 1."""
    hook = with_hook(model, task.layer, lambda out, x: out + vector / vector.norm(), "block")
    try:
        return answer_losses(plain_forward(model), task.test)
    finally:
        hook.remove()


# --- DiffMean at every layer ------------------------------------------------------------------------------------------


def ours_diff_mean(task: Task) -> Contender:
    """This package's `diff_mean` of every layer: mean over each answer's tokens."""
    from easyedit_split import diff_mean, load_model

    model, tokenizer = load_model(task.folder)
    layers, pairs = range(model.config.num_hidden_layers), package_pairs(task.train)
    made: list[Any] = []

    def work() -> None:
        made[:] = [diff_mean(model, tokenizer, pairs, layer=layers)]

    return Contender(work, lambda: steering(model, task, made[0].parts[task.layer].delta.tensors()["db"]))


def steering_vectors(task: Task) -> Contender:
    """steering-vectors' `train_steering_vector`: the last token's states of each text."""
    from steering_vectors import train_steering_vector

    model, tokenizer = plain_model(task)
    texts = [(p.text("matching"), p.text("not_matching")) for p in task.train]
    made: list[Any] = []

    def work() -> None:
        made[:] = [train_steering_vector(model, tokenizer, texts, batch_size=16)]

    return Contender(work, lambda: steering(model, task, made[0].layer_activations[task.layer]))


def repeng(task: Task) -> Contender:
    """repeng's `ControlVector.train`: the last token's states, and a principal component a layer."""
    import torch
    from repeng import ControlVector, DatasetEntry

    model, tokenizer = plain_model(task)
    entries = [DatasetEntry(p.text("matching"), p.text("not_matching")) for p in task.train]
    made: list[Any] = []

    def work() -> None:
        made[:] = [ControlVector.train(model, tokenizer, entries, batch_size=16)]

    return Contender(work, lambda: steering(model, task, torch.from_numpy(made[0].directions[task.layer])))


# --- a sweep over strengths -------------------------------------------------------------------------------------------


def strengths(task: Task) -> list[float]:
    """Equally spaced, 0 among them."""
    step = 2 * STARTS / (task.points - 1)
    return [step * k - STARTS for k in range(task.points)]


def swept_artifact(model: Any, task: Task) -> Any:
    from easyedit_split import Site, SteeringArtifact
    from easyedit_split.changes.forms import Vector

    delta = Vector(model.config.intermediate_size, model.config.hidden_size)
    delta.db.data.copy_(seeded_vector(model.config.hidden_size, VECTOR_SCALE))
    return SteeringArtifact(delta.requires_grad_(False), Site(task.layer))


def ours_sweep(task: Task) -> Contender:
    """This package's `sweep`, sums."""
    from easyedit_split import load_model, sweep

    model, tokenizer = load_model(task.folder)
    made: list[Any] = []

    def work() -> None:
        artifact = swept_artifact(model, task)
        made[:] = [sweep(model, tokenizer, package_pairs(task.train), artifact, strengths(task), "sum")]

    return Contender(work, lambda: {w: float(v.mean()) for w, v in zip(ANSWERS, _losses(made[0]), strict=True)})


def _losses(table: Any) -> tuple[Any, Any]:
    return table.loss_pos, table.loss_neg


def cached_pair_losses(model: Any, pair: Pair, pad: int) -> Any:
    """`(2,)` sums of a pair, as the model is steered now: the prompt once, then both answers on its cache."""
    import torch
    import torch.nn.functional as F

    prompt = torch.tensor([pair.prompt])
    first = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    cache = first.past_key_values
    cache.batch_repeat_interleave(2)
    ids, mask = padded([pair.ids(which) for which in ANSWERS], pad)
    seen = torch.cat([torch.ones(2, len(pair.prompt), dtype=mask.dtype), mask], dim=1)
    later = model(input_ids=ids, attention_mask=seen, past_key_values=cache, use_cache=True).logits[:, :-1]
    logits = torch.cat([first.logits.expand(2, -1, -1), later], dim=1)
    targets = ids.masked_fill(mask == 0, -100)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, -1).sum(1)


def hook_sweep(model: Any, layer: int, pairs: list[Pair], vector: Any, values: list[float], pad: int) -> Any:
    """`(M, N, 2)` sums: a hook at each strength, the prompt's cache used by both answers."""
    import torch

    found = []
    for m in values:
        hook = with_hook(model, layer, lambda out, x, m=m: out + m * vector, "block")
        with torch.no_grad():
            found.append(torch.stack([cached_pair_losses(model, pair, pad) for pair in pairs]))
        hook.remove()
    return torch.stack(found)


def hook_loop(task: Task) -> Contender:
    """A careful loop over transformers: one forward of the prompt, one of both answers on its cache."""
    model, tokenizer = plain_model(task)
    vector = seeded_vector(model.config.hidden_size, VECTOR_SCALE)
    made: list[Any] = []

    def work() -> None:
        pad = tokenizer.pad_token_id
        made[:] = [hook_sweep(model, task.layer, task.train, vector, strengths(task), pad)]

    return Contender(work, lambda: {w: float(made[0][..., i].mean()) for i, w in enumerate(ANSWERS)})


def easyedit_pass(task: Task) -> Contender:
    """One pass of EasyEdit's loss mode: one strength, one polarity, batch 1. A sweep takes two for each strength."""
    from easyedit import Host

    host = Host(task.folder, texts_of(task), task.layer, 1, longest(task))
    weights = {"lambda_p": 1.0, "lambda_n": 0.3, "gamma": 0.0, "theta": 0.0}
    options = {"inference": True, "steering_factors": [4.0]}
    return Contender(lambda: host.train(task.form, 1, 0.0, weights, kind="winning_only", **options), dict)


# --- end to end: train, sweep, fit, advice ----------------------------------------------------------------------------


def ours_end_to_end(task: Task) -> Contender:
    """Train, a coarse sweep that goes on where its advice needs it, fits, advice."""
    from easyedit_split import SplitObjective, TrainConfig, load_model, sweep, train
    from easyedit_split.analysis.pipeline import analyse
    from easyedit_split.models.sites import Site
    from easyedit_split.sweeps.refine import refine

    model, tokenizer = load_model(task.folder)
    config = TrainConfig(
        n_epochs=task.epochs, batch_size=task.batch, lr=LR, rank=RANK, steering_factors=STRENGTHS, directions=("add",)
    )
    made: list[Any] = []

    def work() -> None:
        pairs, held = package_pairs(task.train), package_pairs(task.test)
        objective = SplitObjective(**SPLIT)
        artifact = train(
            model, tokenizer, pairs, site=Site(task.layer), form=task.form, objective=objective, config=config
        )
        table = sweep(model, tokenizer, held, artifact, strengths(task), "sum")
        table = refine(model, tokenizer, held, artifact, table)
        made[:] = [artifact, table, analyse(table)]

    def check() -> dict[str, float]:
        best = made[2].recommendation
        advice = {"advice": float(best.m)} if best is not None and best.m is not None else {}
        with made[0].attach(model, 1.0):
            losses = answer_losses(plain_forward(model), task.test)
        return {**losses, "strengths": float(len(made[1].factors)), **advice}

    return Contender(work, check)


# --- generation -------------------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    made = work()
    return time.process_time() - begin, made


def in_turns(plain: Callable[[], Any], steered: Callable[[], Any]) -> Contender:
    """A round has both, the first one alternating; its figures are their processor seconds."""
    made: dict[str, Any] = {}
    rounds: list[int] = []

    def work() -> dict[str, float]:
        order = [("unsteered", plain), ("steered", steered)]
        found = {}
        for name, run in order if len(rounds) % 2 else order[::-1]:
            found[name], made[name] = timed(run)
        rounds.append(1)
        return found

    def check() -> dict[str, float]:
        """How many texts the two have in common, and a number that stands for them."""
        same = sum(a == b for a, b in zip(made["unsteered"], made["steered"], strict=True))
        return {"texts as unsteered": float(same), "tokens": float(sum(map(len, made["steered"])))}

    return Contender(work, check)


def ours_generation(task: Task) -> Contender:
    from easyedit_split import Site, SteeringArtifact, generate, load_model
    from easyedit_split.changes.forms import Vector

    model, tokenizer = load_model(task.folder)
    width = model.config.hidden_size
    delta = Vector(width, width)
    delta.db.data.copy_(seeded_vector(width, STILL_SCALE))
    artifact = SteeringArtifact(delta.requires_grad_(False), Site(task.layer, "residual"))
    questions = [pair.question for pair in task.train[: task.prompts]]
    run = functools.partial(
        generate, model, tokenizer, questions, max_new_tokens=task.tokens, batch_size=len(questions)
    )

    def steered() -> list[list[int]]:
        with artifact.attach(model, 1.0):
            return [tokenizer(text)["input_ids"] for text in run()]

    return in_turns(lambda: [tokenizer(text)["input_ids"] for text in run()], steered)


def plain_generation(task: Task) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Model, prompts and options as this package's `generate` has them: greedy, left-padded, one batch."""
    model, tokenizer = plain_model(task)
    ids, mask = padded([p.prompt for p in task.train[: task.prompts]], tokenizer.pad_token_id, left=True)
    options = {
        "max_new_tokens": task.tokens, "do_sample": False, "use_cache": True, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    return model, ids, mask, options


def plainly(model: Any, ids: Any, mask: Any, options: dict[str, Any]) -> list[list[int]]:
    import torch

    with torch.no_grad():
        return model.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :].tolist()


def steering_vectors_generation(task: Task) -> Contender:
    from steering_vectors import SteeringVector

    model, *inputs = plain_generation(task)
    vector = SteeringVector({task.layer: seeded_vector(model.config.hidden_size, STILL_SCALE)}, "decoder_block")

    def steered() -> list[list[int]]:
        with vector.apply(model):
            return plainly(model, *inputs)

    return in_turns(lambda: plainly(model, *inputs), steered)


def pyreft_generation(task: Task) -> Contender:
    import torch
    from peer_interventions import reft_model, steered_texts

    model, ids, mask, options = plain_generation(task)
    reft, vector = reft_model(model, task.layer)
    vector.data.copy_(seeded_vector(model.config.hidden_size, STILL_SCALE))

    def steered() -> list[list[int]]:
        with torch.no_grad():
            return steered_texts(reft, ids, mask, **options)[:, ids.shape[1] :].tolist()

    return in_turns(lambda: plainly(model, ids, mask, options), steered)


# --- every layer ------------------------------------------------------------------------------------------------------


def ours_layers(task: Task) -> Contender:
    """This package's layer search: DiffMean at every layer, strengths placed by each vector's reach, sweeps, gains."""
    from easyedit_split import load_model
    from easyedit_split.sweeps.layer_search import best_layer, search_layers

    model, tokenizer = load_model(task.folder)
    made: list[Any] = []

    def work() -> None:
        made[:] = [search_layers(model, tokenizer, package_pairs(task.train), points=task.points)]

    return Contender(work, lambda: {"layers": float(len(made[0])), "best": float(best_layer(made[0]).layer)})


def layer_loop(task: Task) -> Contender:
    """A loop over layers: DiffMean by a hook at each, then the hook loop with a cache over as many strengths. It does
    not look for the strengths' scale, and computes no gain."""
    import torch

    model, tokenizer = plain_model(task)
    cut = len(task.train) - max(2, len(task.train) // 4)
    pad = tokenizer.pad_token_id
    swept: list[Any] = []

    def answer_mean(layer: int, pair: Pair, which: str) -> Any:
        kept: list[Any] = []
        hook = with_hook(model, layer, lambda out, x: kept.append(out) or out, "block")
        ids = torch.tensor([[*pair.prompt, *pair.ids(which)]])
        model.model(input_ids=ids, use_cache=False)
        hook.remove()
        return kept[0][0, len(pair.prompt) :].mean(0)

    def work() -> None:
        swept.clear()
        for layer in range(model.config.num_hidden_layers):
            with torch.no_grad():
                means = [[answer_mean(layer, pair, w) for w in ANSWERS] for pair in task.train[:cut]]
            vector = torch.stack([a - b for a, b in means]).mean(0)
            swept.append(hook_sweep(model, layer, task.train[cut:], vector, strengths(task), pad))

    return Contender(work, lambda: {"layers": float(len(swept))})
