"""From a sweep to the strength that a change keeps, and from there to every command that steers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laws import noisy
from swept import write_sweep
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.analysis.pipeline import analyse
from easyedit_split.calibrate import calibration_of, find_calibration, write_calibration
from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.cli import main
from easyedit_split.errors import ArtifactError, FitError
from easyedit_split.sweeps.table import SweepTable


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("qwen2").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def run(lend: Any, tmp_path: Path) -> Path:
    """A folder with a change and its sweep."""
    artifact = noisy(lend("qwen2"), "lora")
    artifact.save(tmp_path / "run")
    write_sweep(artifact, tmp_path / "run" / "sweep.parquet")
    return tmp_path / "run"


def test_it_says_what_the_analysis_says(run: Path) -> None:
    found = analyse(SweepTable.load(run / "sweep.parquet"), 0.5)
    kept, best = calibration_of(found), found.recommendation
    assert best is not None and best.m
    assert (kept.m1, kept.m2, kept.budget, kept.interval) == (best.m, best.m, 0.5, best.interval)
    assert (kept.reliable, kept.reason, kept.swept) == (best.reliable, best.message, (-6.0, 6.0))
    assert (kept.pairs, kept.pairs_sha256, kept.model) == (60, "ab" * 32, "0123456789abcdef")


@pytest.mark.parametrize("budget", [0.25, 1.0, 3.0])
def test_the_band_is_where_the_budget_holds(run: Path, budget: float) -> None:
    """Every swept strength in the band costs no more than the budget, and the next one on either side costs more."""
    table = SweepTable.load(run / "sweep.parquet")
    kept = calibration_of(analyse(table, budget))
    assert kept.band is not None
    low, high = kept.band
    assert low <= kept.m <= high
    utility = table.utility().mean(axis=1)
    loss = utility[table.factors == 0] - utility
    inside = (table.factors >= low) & (table.factors <= high)
    assert (loss[inside] <= budget + 1e-9).all()
    for beyond in (table.factors[table.factors < low][-1:], table.factors[table.factors > high][:1]):
        assert (loss[np.isin(table.factors, beyond)] > budget).all()


def test_fit_writes_it_and_the_sweep_is_still_the_change_s(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = SteeringArtifact.load(run)
    assert main(["fit", str(run), "--write", "--max-utility-drop", "0.5"]) == 0
    out = capsys.readouterr().out
    after = SteeringArtifact.load(run)
    assert after.calibration is not None and after.calibration.budget == 0.5 and after.id == before.id
    assert f"{after.calibration} -> {run / 'layer_1.safetensors'}" in out
    assert main(["fit", str(run)]) == 0  # without --write nothing is touched
    assert SteeringArtifact.load(run).calibration == after.calibration


def test_a_sweep_kept_elsewhere_names_the_change(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = tmp_path / "tables" / "one.parquet"
    write_sweep(SteeringArtifact.load(run), elsewhere)
    assert main(["fit", str(elsewhere), "--write"]) == 2
    assert "does not hold the change that was swept" in capsys.readouterr().err
    assert main(["fit", str(elsewhere), "--write", "--artifact", str(run)]) == 0
    assert SteeringArtifact.load(run).calibration is not None


def test_two_sweeps_of_a_change_are_not_chosen_from(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(SteeringArtifact.load(run), run / "sweep-0123abcd.parquet", pairs=50)
    assert main(["fit", str(run), "--write"]) == 2
    assert "2 sweeps of one folder" in capsys.readouterr().err
    assert main(["fit", str(run / "sweep-0123abcd.parquet"), "--write"]) == 0
    kept = SteeringArtifact.load(run).calibration
    assert kept is not None and kept.pairs == 50


def test_report_writes_it(run: Path) -> None:
    assert main(["report", str(run.parent), "--write"]) == 0
    assert SteeringArtifact.load(run).calibration is not None


def test_nothing_to_keep(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A change whose preference never rises within the budget keeps no strength, and the exit status says so."""
    table = SweepTable.load(run / "sweep.parquet")
    flat = np.repeat(table.loss_pos[12:13], 25, axis=0)
    replace(table, loss_pos=flat, loss_neg=np.repeat(table.loss_neg[12:13], 25, axis=0)).save(run / "sweep.parquet")
    assert main(["fit", str(run), "--write"]) == 1
    assert "nothing written, because there is no strength to keep" in capsys.readouterr().out
    assert SteeringArtifact.load(run).calibration is None


def test_the_change_s_own_strength_comes_before_the_sweep_s(run: Path) -> None:
    artifact = SteeringArtifact.load(run)
    by_sweep, swept = find_calibration(artifact, run)
    assert by_sweep is not None and swept == (-6.0, 6.0)
    own = replace(by_sweep, m1=0.5, m2=0.5, swept=(-1.0, 1.0))
    assert find_calibration(replace(artifact, calibration=own), run) == (own, (-1.0, 1.0))
    assert find_calibration(artifact, run.parent) == (None, None)


def test_a_sweep_of_another_change_is_refused(run: Path, lend: Any) -> None:
    other = noisy(lend("qwen2"), "vector")
    with pytest.raises(ArtifactError, match="sweep of another change"):
        find_calibration(other, run)
    table = SweepTable.load(run / "sweep.parquet")
    other.save(run.parent / "other")
    with pytest.raises(ArtifactError, match="does not hold the change that was swept"):
        write_calibration(run.parent / "other", table, analyse(table, n_boot=10))


def test_an_analysis_without_a_strength_is_refused(run: Path) -> None:
    table = SweepTable.load(run / "sweep.parquet")
    with pytest.raises(FitError, match="no strength to keep"):
        calibration_of(replace(analyse(table, n_boot=10), recommendation=None))


def _kept(run: Path, **changed: Any) -> None:
    artifact = SteeringArtifact.load(run)
    found, _ = find_calibration(artifact, run)
    assert found is not None
    replace(artifact, calibration=replace(found, m1=2.25, m2=2.25, reliable=True, **changed)).save(run)


def test_generate_uses_it_and_says_so(run: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _kept(run)
    ask = ["generate", "--artifact", str(run), "--prompt", "Hi", f"model_name_or_path={model}", "max_new_tokens=4"]
    assert main(ask) == 0
    unsaid = capsys.readouterr().out
    assert main([*ask, "-m", "2.25"]) == 0
    said = capsys.readouterr().out
    first, _, rest = unsaid.partition("\n")
    assert first.startswith("note: no strength given: m = 2.25") and rest == said
    assert main([*ask, "multipliers=[0]"]) == 0
    assert "# m = 0" in capsys.readouterr().out


def test_a_change_that_keeps_none_is_used_at_1_and_that_is_said(
    run: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "sweep.parquet").unlink()
    ask = ["generate", "--artifact", str(run), "--prompt", "Hi", f"model_name_or_path={model}", "max_new_tokens=2"]
    assert main(ask) == 0
    out = capsys.readouterr().out
    assert "keeps no strength, so m = 1" in out and "# m = 1" in out


def test_export_uses_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _kept(run)
    out = tmp_path / "adapter"
    assert main(["export", "--artifact", str(run), "--to", "peft", "--out", str(out)]) == 0
    assert "note: no strength given: m = 2.25" in capsys.readouterr().out
    back = SteeringArtifact.from_peft(out)
    assert isinstance(back, SteeringArtifact) and back.calibration is None
    asked, kept = SteeringArtifact.load(run).scaled(2.25).delta.weight(), back.delta.weight()
    assert asked is not None and kept is not None and bool((asked - kept).abs().max() < 1e-5)
    without = ["export", "--artifact", str(run), "--to", "peft", "--without-db", "--out", str(tmp_path / "other")]
    assert main(without) == 2
    assert "--without-db leaves it out" in capsys.readouterr().err


def test_serving_uses_it(run: Path) -> None:
    from easyedit_split.serving.catalogue import Catalogue

    _kept(run, swept=(-3.0, 3.0))
    (entry,) = Catalogue.read([run]).entries
    assert (entry.recommended, entry.swept) == (2.25, (-3.0, 3.0))
    artifact = SteeringArtifact.load(run)
    assert artifact.calibration is not None
    replace(artifact, calibration=replace(artifact.calibration, reliable=False)).save(run)
    assert Catalogue.read([run]).entries[0].recommended is None
