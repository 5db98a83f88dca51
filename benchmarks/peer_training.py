"""Training contenders: SPLIT in three forms, the same for one LoRA, TRL's SFT, and RePS in both polarities.

A round is a whole run, from the text of the pairs to the trained change; all take the same number of steps on as many
pairs, with AdamW, a linear schedule and gradients clipped at 1. Each draws its own order of pairs and strengths.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
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
    labelled,
    linear_rate,
    mean_losses,
    plain_forward,
    plain_model,
    split_loss,
    with_hook,
)


def ours(objective: str = "split", strengths: tuple[float, ...] = STRENGTHS) -> Callable[[Task], Contender]:
    """This package's `train`."""

    def contender(task: Task) -> Contender:
        from easyedit_split import PreferencePair, Site, TrainConfig, load_model, train
        from easyedit_split.training.objectives import make_objective

        model, tokenizer = load_model(task.folder)
        pairs = [PreferencePair(p.question, p.matching, p.not_matching) for p in task.train]
        both = objective == "reps"
        config = TrainConfig(
            n_epochs=task.epochs, batch_size=task.batch, lr=LR, rank=RANK, steering_factors=strengths,
            directions=("add", "sub") if both else ("add",),
        )  # fmt: skip
        options = {
            "site": Site(task.layer, "residual" if both else "mlp.down_proj"), "form": task.form, "config": config,
            "objective": make_objective(objective, **(SPLIT if objective == "split" else {})),
        }  # fmt: skip
        made: list[Any] = []

        def work() -> None:
            made[:] = [train(model, tokenizer, pairs, **options)]

        def check() -> dict[str, float]:
            with made[0].attach(model, 1.0):
                return answer_losses(plain_forward(model), task.test)

        return Contender(work, check)

    return contender


def batches(task: Task) -> Iterator[tuple[int, list[Pair]]]:
    """The pairs of each step."""
    import torch

    step = 0
    for _ in range(task.epochs):
        for part in torch.randperm(len(task.train)).split(task.batch):
            yield step, [task.train[i] for i in part.tolist()]
            step += 1


def n_steps(task: Task) -> int:
    return task.epochs * -(-len(task.train) // task.batch)


def both_answers(model: Any, chosen: list[Pair], pad: int) -> tuple[Any, Any]:
    """Token means of both answers, `(B,)` each: a full forward of each answer, with all logits, as most loops do."""
    found = []
    for which in ANSWERS:
        ids, mask, labels = labelled(chosen, which, pad)
        found.append(mean_losses(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, labels))
    return found[0], found[1]


def descend(task: Task, parameters: list[Any], loss_of: Callable[[list[Pair]], Any]) -> None:
    """The loop: AdamW, linear schedule, clipping."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    steps = n_steps(task)
    for step, chosen in batches(task):
        linear_rate(optimizer, step, steps)
        optimizer.zero_grad()
        loss_of(chosen).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def change_of(form: str, d_in: int, d_out: int) -> tuple[list[Any], Callable[[Any], Any]]:
    """Parameters of a change and the change of an input: `db`, `B A x`, or `dW x + db`."""
    import torch

    bias = torch.zeros(d_out, requires_grad=True)
    if form == "vector":
        return [bias], lambda x: bias
    if form == "lora":
        a = torch.nn.init.kaiming_uniform_(torch.empty(RANK, d_in), a=5**0.5).requires_grad_(True)
        b = torch.zeros(d_out, RANK, requires_grad=True)
        return [a, b], lambda x: x @ a.T @ b.T
    weight = torch.zeros(d_out, d_in, requires_grad=True)
    return [weight, bias], lambda x: torch.nn.functional.linear(x, weight, bias)


def naive(task: Task) -> Contender:
    """Two full forwards a step with all logits, autograd; the change added by a hook."""
    import torch

    model, tokenizer = plain_model(task)
    made: list[Any] = []

    def work() -> None:
        parameters, change = change_of(task.form, model.config.intermediate_size, model.config.hidden_size)
        dial = [torch.ones(1)]
        hook = with_hook(model, task.layer, lambda out, x: out + dial[0].view(-1, 1, 1) * change(x))

        def loss_of(chosen: list[Pair]) -> Any:
            dial[0] = torch.tensor(STRENGTHS)[torch.randint(len(STRENGTHS), (len(chosen),))]
            return split_loss(*both_answers(model, chosen, tokenizer.pad_token_id))

        descend(task, parameters, loss_of)
        hook.remove()
        made[:] = [change]

    def check() -> dict[str, float]:
        hook = with_hook(model, task.layer, lambda out, x: out + made[0](x))
        try:
            return answer_losses(plain_forward(model), task.test)
        finally:
            hook.remove()

    return Contender(work, check)


def easyedit(task: Task) -> Contender:
    """EasyEdit's own `spilt` in its own wrapper, as its generator calls it."""
    from easyedit import Host

    host = Host(task.folder, texts_of(task), task.layer, task.batch, longest(task))

    def check() -> dict[str, float]:
        from easyedit_split.easyedit.artifacts import read_pt

        artifact = read_pt(next(Path(host.place.name).rglob(f"layer_{task.layer}.pt")), task.layer)
        model, _ = plain_model(task)
        with artifact.attach(model, 1.0):
            return answer_losses(plain_forward(model), task.test)

    return Contender(lambda: host.train(task.form, task.epochs, LR, SPLIT), check)


def texts_of(task: Task) -> list[dict[str, str]]:
    return [{k: getattr(pair, k) for k in ("question", *ANSWERS)} for pair in task.train]


def longest(task: Task) -> int:
    """Tokens of the longest row: EasyEdit pads every row to its tokenizer's limit."""
    return max(len(pair.prompt) + len(pair.ids(which)) for pair in task.train for which in ANSWERS) + 2


def peft(task: Task) -> Contender:
    """PEFT's LoRA at the layer's down projection, and a plain loop."""
    from peft import get_peft_model

    model, tokenizer = plain_model(task)
    made: list[Any] = []

    def work() -> None:
        if made:
            made.pop().unload()
        adapted = get_peft_model(model, lora_config(task))
        parameters = [p for p in adapted.parameters() if p.requires_grad]
        pad = tokenizer.pad_token_id
        descend(task, parameters, lambda chosen: split_loss(*both_answers(adapted, chosen, pad)))
        made.append(adapted)

    return Contender(work, lambda: answer_losses(plain_forward(made[0]), task.test))


def lora_config(task: Task) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules=rf".*layers\.{task.layer}\.mlp\.down_proj",
        task_type="CAUSAL_LM",
    )  # fmt: skip


def trl(task: Task) -> Contender:
    """TRL's trainer: loss on completions alone, no packing; gradient checkpointing and bf16 (its defaults) off."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    model, tokenizer = plain_model(task)
    place = tempfile.TemporaryDirectory()
    made: list[Any] = []

    def work() -> None:
        if made:
            made.pop().unload()
        rows = [{"prompt": p.prompt_text, "completion": p.matching} for p in task.train]
        settings = SFTConfig(
            output_dir=place.name, per_device_train_batch_size=task.batch, num_train_epochs=task.epochs,
            learning_rate=LR, lr_scheduler_type="linear", weight_decay=0.0, max_grad_norm=1.0, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to="none", save_strategy="no", logging_steps=10**6, disable_tqdm=True,
            max_length=None,
        )  # fmt: skip
        trainer = SFTTrainer(
            model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
            peft_config=lora_config(task),
        )  # fmt: skip
        trainer.train()
        made.append(trainer.model)

    return Contender(work, lambda: answer_losses(plain_forward(made[0].eval()), task.test))


def reps_loss(wanted: Any, unwanted: Any, reference: tuple[Any, Any]) -> Any:
    """RePS (Wu et al., 2025), from token means; `reference` holds sums: wanted, unwanted."""
    import torch.nn.functional as F

    scale = (reference[0] - reference[1]).clamp_min(1.0)
    return -F.logsigmoid(unwanted - scale * wanted)


def pyreft_reps(task: Task) -> Contender:
    """The RePS loss in an intervention of pyreft: both polarities of each pair, the negative one with the direction
    ablated, and a reference pass, each with all logits. Both answers share a forward; AxBench runs them apart."""
    import torch
    from peer_interventions import reft_model, steered_logits

    model, tokenizer = plain_model(task)
    made: list[Any] = []

    def work() -> None:
        steered, vector = reft_model(made[0][0].model if made else model, task.layer)

        def loss_of(chosen: list[Pair]) -> Any:
            ids, mask, labels = rows_of_both(chosen, tokenizer.pad_token_id)
            tokens = (labels[:, 1:] != -100).sum(1)
            with torch.no_grad():
                means = mean_losses(steered.model(input_ids=ids, attention_mask=mask, use_cache=False).logits, labels)
                first, second = (means * tokens).chunk(2)
            factor = torch.tensor(STRENGTHS)[torch.randint(len(STRENGTHS), (len(chosen),))].repeat(2)
            losses = []
            for mode, reference in (("add", (first, second)), ("ablate", (second, first))):
                found = mean_losses(steered_logits(steered, ids, mask, mode, factor), labels).chunk(2)
                wanted, unwanted = found if mode == "add" else found[::-1]
                losses.append(reps_loss(wanted, unwanted, reference))
            return torch.cat(losses)

        descend(task, [vector], loss_of)
        made[:] = [(steered, vector)]

    def check() -> dict[str, float]:
        vector = made[0][1].detach()
        plain, _ = plain_model(task)
        hook = with_hook(plain, task.layer, lambda out, x: out + vector.view(-1), "block")
        try:
            return answer_losses(plain_forward(plain), task.test)
        finally:
            hook.remove()

    return Contender(work, check)


def rows_of_both(chosen: list[Pair], pad: int) -> tuple[Any, Any, Any]:
    """Matching answers' rows, then the others', as one batch."""
    import torch

    both = [labelled(chosen, which, pad) for which in ANSWERS]
    width = max(ids.shape[1] for ids, _, _ in both)
    fill = (pad, 0, -100)
    wide = [
        [torch.nn.functional.pad(t, (0, width - t.shape[1]), value=v) for t, v in zip(part, fill, strict=True)]
        for part in both
    ]
    return tuple(torch.cat(parts) for parts in zip(*wide, strict=True))  # type: ignore[return-value]
