"""Which strength should I use? Train a vector, sweep it, fit the law, and generate at the recommended m.

Runs on the demo model without arguments; give a model folder and a file of pairs for your own.
"""

from __future__ import annotations

import argparse

import numpy as np

import easyedit_split as es
from easyedit_split.demo import data_path
from easyedit_split.sweeps.refine import refine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="folder or hub id")
    parser.add_argument("--train", default=str(data_path("reviews", "train")), help="pairs to train on")
    parser.add_argument("--test", default=str(data_path("reviews", "test")), help="pairs to measure on")
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--budget", type=float, default=1.0, help="nats of utility that may be lost")
    options = parser.parse_args()

    model, tokenizer = es.load_model(options.model)
    train_pairs = es.flat_pairs(es.load_pairs(options.train))
    test_pairs = es.flat_pairs(es.load_pairs(options.test))

    artifact = es.train(
        model,
        tokenizer,
        train_pairs,
        site=es.Site(options.layer, "mlp.down_proj"),
        form="vector",
        objective=es.SplitObjective(lambda_p=2.0, lambda_n=1.0, gamma=3.5, theta=1.0),
        config=es.TrainConfig(n_epochs=16, lr=0.05, steering_factors=(1.0, 2.0, 3.0)),
        progress=True,
    )
    table = es.sweep(model, tokenizer, test_pairs, artifact, np.linspace(-4, 4, 17), "sum", progress=True)
    table = refine(model, tokenizer, test_pairs, artifact, table, options.budget)  # measures the strength to use
    found = es.analysis.analyse(table, max_utility_drop=options.budget)
    print(found.advice, *found.remarks, sep="\n")
    if found.recommendation is None or found.recommendation.m is None:
        return

    m = found.recommendation.m
    questions = [pair.question for pair in test_pairs[:3]]
    before = es.generate(model, tokenizer, questions)
    with artifact.attach(model, m):
        after = es.generate(model, tokenizer, questions)
    for question, plain, steered in zip(questions, before, after, strict=True):
        print(f"\n> {question}\n  m = 0: {plain}\n  m = {m:.2f}: {steered}")


if __name__ == "__main__":
    main()
