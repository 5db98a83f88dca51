"""A strength is used only where it was measured: on this change, on its model, in this report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laws import TEXT_PAIRS, noisy

from easyedit_split.calibrate import find_calibration, write_calibration
from easyedit_split.errors import ArtifactError, FitError
from easyedit_split.run_folder import report_run
from easyedit_split.sweeps.run import sweep
from easyedit_split.sweeps.table import SweepTable


def _swept(lend: Any, tokenizer: Any, folder: Path) -> tuple[Any, SweepTable]:
    model = lend("qwen2")
    artifact = noisy(model, "vector", layer=2)
    table = sweep(model, tokenizer, TEXT_PAIRS, artifact, np.linspace(-4, 4, 25), "sum")
    artifact.save(folder)
    table.save(folder / "sweep.parquet")
    return artifact, table


def test_the_sweep_of_another_change_gives_this_one_no_strength(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    artifact, _ = _swept(lend, tokenizer, tmp_path)
    find_calibration(artifact, tmp_path)
    with pytest.raises(ArtifactError, match="is the sweep of another change"):
        find_calibration(artifact.scaled(10.0), tmp_path)


def test_a_strength_of_another_model_is_not_kept(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    from easyedit_split.analysis import analyse

    artifact, table = _swept(lend, tokenizer, tmp_path)
    other = replace(table, header={**table.header, "any_model": True})
    with pytest.raises(FitError, match="--any-model"):
        write_calibration(tmp_path, other, analyse(other))
    other.save(tmp_path / "sweep.parquet")
    assert find_calibration(artifact, tmp_path) == (None, (-4.0, 4.0))


def test_every_sweep_of_a_report_has_a_name_of_its_own(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    run = tmp_path / "x"
    for folder in (run, run / "x", run / "a", run / "a, token mean"):
        _swept(lend, tokenizer, folder)
    advice = report_run(run)
    assert {"x", "x (2)", "a", "a, token mean"} <= set(advice.advice)
    assert len(advice.advice) == 8  # each in sums and in means
