"""The changes, in the order in which a maintainer would take them."""

from __future__ import annotations

from ..patch import Patch
from . import (
    experiment_files,
    factor_zero,
    imports,
    last_batch,
    lora_alpha,
    loss_mode,
    one_factor,
    original_output,
    pair_losses,
    reps_lengths,
    result_path,
    resume_file,
    schedule,
    split_method,
    templates,
)

PATCHES: tuple[Patch, ...] = tuple(
    sorted(
        (
            module.PATCH
            for module in (
                imports, loss_mode, one_factor, pair_losses, lora_alpha, factor_zero, templates, schedule, last_batch,
                resume_file, original_output, reps_lengths, experiment_files, result_path, split_method,
            )
        ),
        key=lambda patch: patch.number,
    )
)  # fmt: skip
