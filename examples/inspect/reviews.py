"""A tiny Inspect task on the demo's test questions: is the review a happy one, and is it still a review?

cd examples/inspect && inspect eval reviews.py --model easyedit_split/demo -M artifact=FOLDER -M m=2 -M do_sample=false
"""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState, generate

import easyedit_split as es
from easyedit_split.demo import data_path
from easyedit_split.demo.judge import judge


@scorer(metrics={"happy": [mean()], "fluent": [mean()]})
def micro_judge() -> Scorer:
    """The micro-world's own grammar, 0 to 2 a point."""

    async def score(state: TaskState, target: Target) -> Score:
        found = judge("reviews", state.input_text, state.output.completion)
        return Score(value={"happy": found.concept, "fluent": found.fluency})

    return score


@task
def demo_reviews(questions: int = 100) -> Task:
    pairs = es.flat_pairs(es.load_pairs(data_path("reviews", "test")))[:questions]
    samples = [Sample(input=pair.question) for pair in pairs]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=micro_judge())
