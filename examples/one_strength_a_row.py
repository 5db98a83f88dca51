"""One strength for each row of a batch, and two changes at once. Runs on the demo model without arguments."""

from __future__ import annotations

import torch

import easyedit_split as es
from easyedit_split.demo import data_path

QUESTION = "What do you think of the sofa?"


def main() -> None:
    model, tokenizer = es.load_model("demo")
    pairs = es.flat_pairs(es.load_pairs(data_path("reviews", "train")))
    settings = es.TrainConfig(n_epochs=6, steering_factors=(0.5, 1.0, 2.0))
    lora = es.train(
        model, tokenizer, pairs, site=es.Site(3), form="lora", objective=es.SplitObjective(), config=settings
    )

    strengths = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    with lora.attach(model, strengths):  # row i of the batch is steered with strengths[i]
        answers = es.generate(model, tokenizer, [QUESTION] * len(strengths), batch_size=len(strengths))
    for m, answer in zip(strengths.tolist(), answers, strict=True):
        print(f"m = {m:+.0f}: {answer}")

    vector = es.diff_mean(model, tokenizer, pairs, layer=3)
    with lora.attach(model, 1.0), vector.attach(model, 0.5):  # changes stack
        print(f"both:   {es.generate(model, tokenizer, [QUESTION])[0]}")
    print(f"plain:  {es.generate(model, tokenizer, [QUESTION])[0]}")  # nothing stays behind


if __name__ == "__main__":
    main()
