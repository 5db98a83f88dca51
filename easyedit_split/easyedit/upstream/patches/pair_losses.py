"""The objective is computed a pair at a time."""

from __future__ import annotations

import ast
from pathlib import Path

from ..edit import Source
from ..patch import Patch

HELPER = '''
def pair_losses(outputs, labels):
    """Mean loss over the answer tokens of each row, shape (batch,)."""
    targets = labels[:, 1:].long()
    logits = outputs.logits[:, :-1].float().transpose(1, 2)
    losses = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
    return losses.sum(dim=-1) / (targets != -100).sum(dim=-1)


'''


def apply(root: Path) -> None:
    source = Source(root, "steer/trainer/SFTModelTrainer.py")
    train = source.function("train")
    for name in ("pos", "neg"):
        own = f'{name}_losses = pair_losses({name}_outputs_orig, {name}_minibatch_inputs["labels"])'
        source.replace(source.assignment(f"{name}_loss", train), f"{own}\n{name}_loss = {name}_losses.mean()")
        reference = f'pair_losses({name}_ref_outputs, {name}_minibatch_inputs["labels"])'
        violation = source.assignment(f"{name}_ref_violation", train)
        source.replace(violation.value, f"F.relu({name}_losses - {reference}).mean()")
        whole = f"{name}_outputs_orig.loss.item()"
        for call in source.all(ast.Call, within=train):
            if ast.unparse(call) == whole:
                source.replace(call, f"{name}_loss.item()")
    margin = source.assignment("margin_loss", train)
    source.replace(margin.value, "margin_penalty_weight * F.relu(margin_threshold - (neg_losses - pos_losses)).mean()")
    trainer = source.one(ast.ClassDef, lambda n: n.name == "SFTModelTrainer", None, "class SFTModelTrainer")
    source.before(trainer, HELPER)
    source.save()


PATCH = Patch(
    4,
    "pair-losses",
    "Compute the SFT/SPILT objective per pair",
    "The hinge of SPILT is taken on the losses of a whole batch, so pairs that violate the margin are hidden by those "
    "that do not, and long answers weigh more than short ones. Take both for each pair, then average.",
    apply,
    cures=("test_hinge_is_taken_for_each_pair", "test_pairs_of_a_batch_weigh_the_same"),
    defects=("test_hinge_is_taken_on_batch_means",),
)
