"""A SPLIT training step against its floor, a naive loop, and EasyEdit's `spilt`.

    OMP_NUM_THREADS=1 [EASYEDIT_HOME=…] python benchmarks/train_step.py [--shape wide|deep|small] [--form vector]

A round is one whole training run of `--epochs` epochs, from the text of the pairs to the trained change; its time is
divided by the number of optimiser steps. The floor counts the lower blocks once a run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from common import (
    FACTORS,
    FORMS,
    RANK,
    Shape,
    chosen_shapes,
    contenders,
    count,
    describe,
    machine,
    make_model,
    make_pairs,
    make_tokenizer,
    matrix_rate,
    race,
    serve,
    shape_options,
    table,
)

SPLIT = {"lambda_p": 1.0, "lambda_n": 0.3, "gamma": 3.5, "theta": 0.6}
LR = 0.01


def ours(shape: Shape, form: str, epochs: int) -> Callable[[], Any]:
    from easyedit_split import Site, SplitObjective, TrainConfig, train

    model, tokenizer, pairs = make_model(shape), make_tokenizer(), make_pairs(shape)
    config = TrainConfig(
        n_epochs=epochs, batch_size=shape.batch, lr=LR, rank=RANK, steering_factors=FACTORS,
        gradient_accumulation_steps=1, directions=("add",), dropout=0.0,
    )  # fmt: skip
    options = {"site": Site(shape.layer), "form": form, "objective": SplitObjective(**SPLIT), "config": config}
    return lambda: train(model, tokenizer, pairs, **options)


def naive(shape: Shape, form: str, epochs: int) -> Callable[[], Any]:
    """Two full forwards a step with all logits, `cross_entropy`, autograd; the change added by a hook."""
    import torch
    import torch.nn.functional as F

    from easyedit_split.changes.forms import make_delta
    from easyedit_split.data.tokens import Encoder

    model, tokenizer, pairs = make_model(shape), make_tokenizer(), make_pairs(shape)

    def rows(encoded: Any, which: str) -> tuple[Any, Any]:
        ids = torch.tensor([[*e.prompt, *getattr(e, which)] for e in encoded])
        labels = ids.clone()
        labels[:, : shape.prompt] = -100
        return ids, labels

    def answer_loss(ids: Any, labels: Any) -> Any:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, :-1]
        losses = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none")
        return losses.view(len(ids), -1).sum(1) / (labels[:, 1:] != -100).sum(1)

    def work() -> None:
        encoded = Encoder(tokenizer).pairs(pairs)
        delta = make_delta(form, shape.intermediate, shape.hidden, RANK)
        optimizer = torch.optim.AdamW(delta.parameters(), lr=LR, weight_decay=0.0)
        dial = [torch.ones(1)]
        module = model.model.layers[shape.layer].mlp.down_proj
        hook = module.register_forward_hook(lambda m, a, out: out + dial[0].view(-1, 1, 1) * delta(a[0]))
        for _ in range(epochs):
            for part in torch.randperm(len(pairs)).split(shape.batch):
                chosen = [encoded[i] for i in part.tolist()]
                dial[0] = torch.tensor(FACTORS)[torch.randint(len(FACTORS), (len(chosen),))]
                optimizer.zero_grad()
                wanted, unwanted = (answer_loss(*rows(chosen, w)) for w in ("matching", "not_matching"))
                hinge = torch.relu(SPLIT["theta"] - (unwanted - wanted))
                (SPLIT["lambda_p"] * wanted + SPLIT["lambda_n"] * unwanted + SPLIT["gamma"] * hinge).mean().backward()
                torch.nn.utils.clip_grad_norm_(delta.parameters(), 1.0)
                optimizer.step()
        hook.remove()

    return work


def easyedit(shape: Shape, form: str, epochs: int) -> Callable[[], Any]:
    """EasyEdit's own wrapper and trainer, in the process's temporary folder."""
    from easyedit import host_of

    host = host_of(shape)
    return lambda: host.train(form, epochs, LR, SPLIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shape_options(parser)
    parser.add_argument("--form", choices=[*FORMS, "all"], default="all")
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    if args.worker:
        (shape,) = chosen_shapes(args)
        work = {"ours": ours, "naive": naive, "easyedit": easyedit}[args.worker](shape, args.form, args.epochs)
        serve(work)
        return
    print(machine())
    for shape in chosen_shapes(args):
        print(f"\nSPLIT step, {shape.name}: {describe(shape)}; {args.epochs} epochs, {args.rounds} rounds, medians")
        names = args.only or contenders()
        rows = []
        for form in FORMS if args.form == "all" else (args.form,):
            options = ["--shape", shape.name, "--pairs", str(shape.pairs), "--form", form, "--epochs", str(args.epochs)]
            before = matrix_rate()
            found = race(names, __file__, options, args.rounds)
            rate = (before + matrix_rate()) / 2
            steps = args.epochs * shape.steps_per_epoch
            floor = shape.batch * count(shape, form).training(args.epochs) / rate
            ours_time = found["ours"].median / steps if "ours" in found else float("nan")
            for name in names:
                time = found[name].median / steps
                rows.append([
                    form, name, f"{floor * 1e3:.0f}", f"{time * 1e3:.0f}", f"{found[name].wall / steps * 1e3:.0f}",
                    f"{time / floor:.2f}", f"{time / ours_time:.2f}", f"{found[name].peak:.0f}", f"{rate / 1e9:.0f}",
                ])  # fmt: skip
        table(
            ["form", "", "floor ms", "processor ms a step", "wall ms", "x floor", "x ours", "peak MB", "GFLOP/s"], rows
        )


if __name__ == "__main__":
    main()
