"""RePS divides by the length of the answers."""

from __future__ import annotations

from pathlib import Path

from ..edit import Source
from ..patch import Patch

HALVES = {"winning_lens": ":minibatch_size_actual // 2", "losing_lens": "minibatch_size_actual // 2:"}


def apply(root: Path) -> None:
    source = Source(root, "steer/trainer/PreferenceModelTrainer.py")
    train = source.function("train")
    for name, half in HALVES.items():
        length = source.assignment(name, train)
        source.replace(length.value, f'(minibatch_inputs["labels"][{half}, 1:] != -100).sum(dim=-1)')
    source.save()


PATCH = Patch(
    12,
    "reps-lengths",
    "Normalize RePS by answer length",
    "The lengths by which RePS divides log-probabilities of the answers are sums of the attention mask, that is of "
    "prompt and answer. Count the tokens that the log-probabilities are summed over.",
    apply,
    cures=("test_reps_divides_by_the_answers_length",),
    defects=("checks_objectives.py::test_reps_of_easyedit_divides_by_prompt_and_answer",),
)
