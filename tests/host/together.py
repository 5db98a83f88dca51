"""With all changes of `upstream` made, EasyEdit's own `spilt` gives this package's numbers; run like cures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from host.checks_objectives import change_of, encoded, our_step, wanted_answers
from host.inside import FORMS, logged, measured, spilt_shell, upstream_texts, upstream_training

from easyedit_split.data.tokens import Encoder
from easyedit_split.easyedit import register
from easyedit_split.training.objectives import SplitObjective

register()


@pytest.mark.parametrize("form", FORMS)
def test_spilt_gives_our_numbers(wrapper: Any, form: str, tmp_path: Path) -> None:
    """Qwen2 shape, both directions, all pairs in one batch of five: loss and gradient of the whole objective."""
    change = change_of(wrapper, form)
    ours = our_step(wrapper, change, SplitObjective(lambda_p=1.0, lambda_n=0.3, gamma=3.5, theta=0.6), "both")
    shell = spilt_shell(
        form, tmp_path, batch_size=5, lr=0.0, preference_pairs=["orig_add", "orig_sub"], loss_output_dir=str(tmp_path)
    )
    gradients = upstream_training(wrapper, change.delta, shell, upstream_texts(Encoder(wrapper.tokenizer)))
    rows = logged(tmp_path)
    theirs = [
        float(row["pos_steer_loss"]) + 0.3 * float(row["neg_steer_loss"]) + float(row["margin_loss"]) for row in rows
    ]
    assert len(rows) == 2 and len(wanted_answers(encoded(wrapper), "both")) == 10
    mine = float(ours.values().mean())
    off = abs(sum(theirs) / 2 - mine) / mine
    names = list(ours.gradients)
    apart = max(float((gradients[n] - ours.gradients[n]).norm() / ours.gradients[n].norm()) for n in names)
    measured(f"{form}: loss of ten directed pairs, nats", f"{sum(theirs) / 2:.6f} here, {mine:.6f} ours")
    measured(f"{form}: largest distance of a gradient, part of its norm", apart)
    assert off < 1e-5 and apart < 1e-4
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
