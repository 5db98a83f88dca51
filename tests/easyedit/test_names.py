"""Folders that EasyEdit's scripts name by its own method, and its loss files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from easyedit_split.easyedit.losses import write_losses, write_losses_by_answer
from easyedit_split.easyedit.methods import METHODS
from easyedit_split.easyedit.names import METHOD_OF, MODEL_OF, easyedit_name, trained_folder
from easyedit_split.errors import ArtifactError
from easyedit_split.settings.shipped import hparams_root
from easyedit_split.sweeps.table import SweepTable


def holds(folder: Path, layer: int = 14, below: str = "") -> Path:
    (folder / below).mkdir(parents=True, exist_ok=True)
    (folder / below / f"layer_{layer}.safetensors").touch()
    return folder


def test_every_method_has_the_name_of_the_one_whose_place_it_takes() -> None:
    assert set(METHOD_OF.values()) == set(METHODS)
    assert [easyedit_name(METHOD_OF[name]) for name in METHOD_OF] == list(METHOD_OF)


def test_every_model_name_of_easyedit_has_files() -> None:
    assert all((hparams_root() / model / "psychopathy").is_dir() for model in MODEL_OF.values())


@pytest.mark.parametrize("below", ["", "concept_3"])
def test_a_folder_named_after_easyedits_method_leads_to_ours(tmp_path: Path, below: str) -> None:
    ours = holds(tmp_path / "split_lora", below=below)
    (tmp_path / "spilt_lora").mkdir()
    assert trained_folder(tmp_path / "spilt_lora", "split", 14) == ours
    assert trained_folder(tmp_path / "spilt_lora", "split", 15) == tmp_path / "spilt_lora"
    assert trained_folder(tmp_path / "spilt_lora", "unified_sft", 14) == tmp_path / "spilt_lora"
    assert trained_folder(ours, "split", 14) == ours


def test_easyedits_result_is_read_where_ours_is_not_beside_it(tmp_path: Path) -> None:
    theirs = holds(tmp_path / "sft_vector")
    assert trained_folder(theirs, "unified_sft", 14) == theirs


def test_two_results_under_one_name_are_refused(tmp_path: Path) -> None:
    holds(tmp_path / "spilt_lora")
    ours = holds(tmp_path / "split_lora")
    with pytest.raises(ArtifactError, match=f"both hold layer 14, .* or set steer_vector_load_dir to {ours}"):
        trained_folder(tmp_path / "spilt_lora", "split", 14)


@pytest.fixture
def table() -> SweepTable:
    tokens = np.array([2.0, 4.0])
    return SweepTable(
        np.array([0.5, 2.0]), np.array([[2.0, 8.0], [4.0, 12.0]]), np.array([[6.0, 4.0], [1.0, 2.0]]), "sum", tokens,
        tokens,
    )  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_losses_are_means_over_tokens_in_easyedits_columns(table: SweepTable, tmp_path: Path) -> None:
    written = rows(write_losses(table, tmp_path))
    assert [(r["step"], float(r["pos_steer_loss"]), float(r["neg_steer_loss"])) for r in written] == [
        ("0", 1.0, 3.0), ("1", 2.0, 1.0), ("0", 2.0, 0.5), ("1", 3.0, 0.5),
    ]  # fmt: skip
    assert written[0]["pos_steering_factors"] == written[0]["neg_steering_factors"] == "tensor([0.5000])"


def test_losses_in_easyedits_folders_hold_one_answer_each(table: SweepTable, tmp_path: Path) -> None:
    written = write_losses_by_answer(table, tmp_path, "lora", "spilt")
    assert [path.parent.name for path in written] == [
        "lora_spilt_m0.5_winning_only", "lora_spilt_m0.5_losing_only", "lora_spilt_m2.0_winning_only",
        "lora_spilt_m2.0_losing_only",
    ]  # fmt: skip
    assert [float(r["pos_steer_loss"]) for r in rows(written[1])] == [3.0, 1.0]
    assert list(rows(written[0])[0]) == [
        "epoch",
        "step",
        "pos_steer_loss",
        "pos_steering_factors",
        "neg_steering_factors",
    ]
