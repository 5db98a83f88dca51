"""Folders that know what is in them: what was made from one change is never taken for that of another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import saved_model, tiny_model, tiny_tokenizer

from easyedit_split import SteeringArtifact, SweepTable
from easyedit_split.cli import main
from easyedit_split.errors import ArtifactError
from easyedit_split.run_folder import load_sweeps, report_run, save_activations, save_scores
from easyedit_split.storage.files import read_tensors, write_tensors


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("other"), seed=1)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command on the tiny model: exit status, output, errors."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        given = [a.partition("=")[0] for a in arguments]
        keys = {"model_name_or_path": model, "train_data": data, "test_data": data, "layers": "[1]", "n_epochs": 1}
        capsys.readouterr()
        status = main([name, *arguments, *(f"{k}={v}" for k, v in keys.items() if k not in given)])
        return status, *capsys.readouterr()

    return run


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


VECTOR = ("intervention_method=vector", "intervention_components=mlp_mid", "batch_size=5")
LORA = ("intervention_method=lora", "batch_size=5", "low_rank_dimension=2")


def test_another_run_is_refused_and_overwriting_takes_away_what_no_longer_holds(
    command: Command, tmp_path: Path, model: Path, other_model: Path
) -> None:
    out, into = tmp_path / "run", f"output_dir={tmp_path / 'run'}"
    assert command("train", *VECTOR, into)[0] == 0
    assert command("sweep", "--artifact", str(out), into, "factors=[-1,0,1]")[0] == 0
    assert command("evaluate", "--artifact", str(out), into, "max_new_tokens=2")[0] == 0
    (out / "mine.txt").write_text("not ours")
    held = _names(out)
    for change, said in ((LORA, "form vector, here lora"), ((*VECTOR, "lr=0.5"), "lr 0.01, here 0.5"),
                         ((*VECTOR, f"model_name_or_path={other_model}"), "is of another model"),
                         ((*VECTOR, "dtype=bfloat16"), "another precision"),
                         ((*VECTOR, "max_num_of_examples=4"), "pairs' hash")):  # fmt: skip
        status, _, errors = command("train", *change, into)
        assert status == 2 and said in errors and "overwrite=true" in errors, errors
        assert _names(out) == held
    assert command("train", *VECTOR, into)[0] == 0, "the same run again"
    assert _names(out) == held
    assert command("train", *LORA, into, "overwrite=true")[0] == 0
    assert _names(out) == ["layer_1.safetensors", "mine.txt"]
    assert SteeringArtifact.load(out).form == "lora"


def test_a_refined_sweep_knows_itself_again(command: Command, tmp_path: Path) -> None:
    out, into, strengths = tmp_path / "run", f"output_dir={tmp_path / 'run'}", "factors=[-9,-3,3,9]"
    assert command("train", *VECTOR, into)[0] == 0
    refined = ("sweep", "--artifact", str(out), into, strengths, "--refine")
    assert command(*refined)[0] == 0
    table = SweepTable.load(out / "sweep.parquet")
    assert set(table.factors.tolist()) >= {-9, -3, 0, 3, 9}  # 0 was needed
    assert command(*refined)[0] == 0
    assert [file for file in _names(out) if "sweep" in file] == ["sweep.parquet"]
    np.testing.assert_array_equal(SweepTable.load(out / "sweep.parquet").loss_pos, table.loss_pos)
    assert command(*refined[:-1])[0] == 0  # not refined: another sweep, beside the first
    assert len(SweepTable.load(out / "sweep.parquet").factors) == len(table.factors)
    assert len([file for file in _names(out) if "sweep" in file]) == 2


def test_a_stale_plain_vector_does_not_outlive_its_change(tmp_path: Path) -> None:
    from laws import noisy

    model = tiny_model("qwen2")
    noisy(model, "vector", "residual").save(tmp_path)
    noisy(model, "lora").save(tmp_path)
    assert _names(tmp_path) == ["layer_1.safetensors"]


def test_a_broken_change_is_replaced_only_when_asked(command: Command, tmp_path: Path) -> None:
    out, into = tmp_path / "run", f"output_dir={tmp_path / 'run'}"
    out.mkdir()
    (out / "layer_1.safetensors").write_bytes(b"half of it")
    status, _, errors = command("train", *VECTOR, into)
    assert status == 2 and "layer_1.safetensors is broken" in errors and "overwrite=true replaces it" in errors
    assert command("train", *VECTOR, into, "overwrite=true")[0] == 0
    (out / "sweep.parquet").write_bytes(b"PAR1 and no more")
    assert command("generate", "--artifact", str(out), "-m", "1", "--prompt", "Hi", "max_new_tokens=2")[0] == 0


def test_an_export_into_the_folder_of_another_change(command: Command, tmp_path: Path) -> None:
    art, out = tmp_path / "art", tmp_path / "out"
    assert command("train", *VECTOR, f"output_dir={art}")[0] == 0
    assert command("sweep", "--artifact", str(art), f"output_dir={art}", "factors=[0,1]")[0] == 0
    export = ("export", "--artifact", str(art), "--to", "easyedit", "--out")
    assert command(*export, str(out), "-m", "2")[0] == 0
    assert command(*export, str(out), "-m", "2")[0] == 0, "the same again"
    status, _, errors = command(*export, str(art), "-m", "2")
    assert status == 2 and "holds another change" in errors
    shutil.copytree(art, tmp_path / "copy")
    assert command(*export, str(tmp_path / "copy"), "-m", "2", "overwrite=true")[0] == 0
    assert _names(tmp_path / "copy") == ["layer_1.pt", "layer_1.safetensors"]


def test_another_layer_of_the_same_run_lies_beside_it(command: Command, tmp_path: Path) -> None:
    into = f"output_dir={tmp_path / 'run'}"
    assert command("train", *VECTOR, into)[0] == 0
    assert command("train", *VECTOR, into, "layers=[2]")[0] == 0
    assert len(list((tmp_path / "run").glob("layer_*.safetensors"))) == 2


def test_two_sweeps_of_one_change_lie_beside_each_other(command: Command, tmp_path: Path) -> None:
    out, into = tmp_path / "run", f"output_dir={tmp_path / 'run'}"
    assert command("train", *VECTOR, into)[0] == 0
    sweep = ("sweep", "--artifact", str(out), into)
    assert command(*sweep, "factors=[-1,0,1]")[0] == 0
    first = (out / "sweep.parquet").read_bytes()
    status, said, _ = command(*sweep, "factors=[-2,0,2]")
    assert status == 0 and "sweep-" in said.splitlines()[-1]
    (second,) = out.glob("sweep-*.parquet")
    assert command(*sweep, "factors=[-2,0,2]")[0] == 0, "its own name again"
    assert (out / "sweep.parquet").read_bytes() == first
    assert [p.name for p in load_sweeps(out)] == ["sweep.parquet", second.name]
    assert SweepTable.load(second).factors.tolist() == [-2, 0, 2]
    named = ("--out", str(out / "sweep.parquet"))
    status, _, errors = command(*sweep, *named, "factors=[-3,0,3]")
    assert status == 2 and "a sweep of other settings" in errors
    assert command(*sweep, *named, "factors=[-3,0,3]", "overwrite=true")[0] == 0


def test_a_sweep_names_what_it_was_made_from(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command("train", *VECTOR, f"output_dir={out}")[0] == 0
    assert command("sweep", "--artifact", str(out), f"output_dir={out}", "factors=[-1,0,1]")[0] == 0
    header = SweepTable.load(out / "sweep.parquet").header
    artifact = SteeringArtifact.load(out)
    assert header["artifact"]["id"] == artifact.id
    assert header["pairs_sha256"] == artifact.origin["pairs_sha256"]
    assert header["chat"] is True and header["system_prompt"] == ""
    assert len(header["model"]["weights"]) == 16


def test_what_is_of_another_change_is_refused_everywhere(command: Command, tmp_path: Path, model: Path) -> None:
    """A sweep beside a change that it is not of: fit, report and sweep say so; a fresh folder is what is asked for."""
    one, two = tmp_path / "one", tmp_path / "two"
    for out, change in ((one, VECTOR), (two, LORA)):
        assert command("train", *change, f"output_dir={out}", "lr=0.1")[0] == 0
    assert command("sweep", "--artifact", str(one), f"output_dir={one}", "factors=[-1,0,1]")[0] == 0
    status, _, errors = command("sweep", "--artifact", str(one), f"output_dir={two}", "factors=[-1,0,1]")
    assert status == 2 and "holds another change (layer_1.safetensors)" in errors
    status, _, errors = command("evaluate", "--artifact", str(one), f"output_dir={two}", "max_new_tokens=2")
    assert status == 2 and "holds another change" in errors
    status, _, errors = command("export", "--artifact", str(one), "--to", "easyedit", "--out", str(two))
    assert status == 2 and "holds another change" in errors
    shutil.copy(one / "sweep.parquet", two / "sweep.parquet")
    for arguments in (["fit", str(two)], ["fit", str(two / "sweep.parquet")], ["report", str(two)]):
        assert main(arguments) == 2
    with pytest.raises(ArtifactError, match="is of another change than layer_1.safetensors beside it: run sweep again"):
        load_sweeps(two)
    with pytest.raises(ArtifactError, match="of another change"):
        report_run(two)
    # of one change with the folder of none: both are read
    lone = tmp_path / "lone"
    lone.mkdir()
    shutil.copy(one / "sweep.parquet", lone)
    assert load_sweeps(lone)
    status, _, errors = command("sweep", "--artifact", str(two), f"output_dir={lone}", "factors=[-1,0,1]")
    assert status == 2 and "sweep.parquet is of another change" in errors
    again = ("sweep", "--artifact", str(two), f"output_dir={lone}", "factors=[-1,0,1]", "overwrite=true")
    assert command(*again)[0] == 0
    assert SweepTable.load(lone / "sweep.parquet").header["artifact"]["form"] == "lora"


def test_the_model_is_asked_for_by_every_command(
    command: Command, tmp_path: Path, other_model: Path, data: Path
) -> None:
    out, elsewhere = tmp_path / "run", f"model_name_or_path={other_model}"
    assert command("train", *VECTOR, f"output_dir={out}")[0] == 0
    artifact = ("--artifact", str(out))
    cases: tuple[tuple[str, ...], ...] = (
        ("generate", *artifact, "--prompt", "Hi", "max_new_tokens=2"),
        ("sweep", *artifact, f"output_dir={tmp_path / 's'}", "factors=[0,1]"),
        ("evaluate", *artifact, f"output_dir={tmp_path / 'e'}", "max_new_tokens=2"),
        ("export", *artifact, "--to", "peft", "--lora-bias", "--out", str(tmp_path / "p")),
    )
    for case in cases:
        status, _, errors = command(*case, elsewhere)
        assert status == 2 and "other weights" in errors and "--any-model" in errors, (case, errors)
    for case in cases:
        assert command(case[0], "--any-model", *case[1:], elsewhere)[0] == 0, case


def test_a_folder_of_the_earlier_version_is_read(command: Command, tmp_path: Path) -> None:
    """No id, no weights, no hash of pairs; scores without their change."""
    out = tmp_path / "run"
    assert command("train", *VECTOR, f"output_dir={out}")[0] == 0
    assert command("sweep", "--artifact", str(out), f"output_dir={out}", "factors=[-1,0,1]")[0] == 0
    file = out / "layer_1.safetensors"
    tensors, header = read_tensors(file)
    model = {k: v for k, v in header["model"].items() if k not in ("weights", "dtype", "mlp_adds_to_stream")}
    write_tensors(file, tensors, {**{k: v for k, v in header.items() if k != "id"}, "model": model})
    table = SweepTable.load(out / "sweep.parquet")
    old = {k: v for k, v in table.header.items() if k not in ("pairs_sha256", "chat", "system_prompt")}
    old["artifact"] = {k: v for k, v in old["artifact"].items() if k != "id"}
    old["model"] = model
    SweepTable(**{**vars(table), "header": old}).save(out / "sweep.parquet")
    assert load_sweeps(out)
    assert SteeringArtifact.load(out).acts_at_block_output
    status, said, _ = command("sweep", "--artifact", str(out), f"output_dir={out}", "factors=[-1,0,1]")
    assert status == 0 and "sweep-" in said.splitlines()[-1], "the old one is kept: what it is of is not known"
    assert command("train", *VECTOR, f"output_dir={out}")[0] == 0
    assert command("train", *LORA, f"output_dir={out}")[0] == 2


def test_evaluations_of_other_settings_lie_beside_each_other(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command("train", *VECTOR, f"output_dir={out}")[0] == 0
    evaluate = ("evaluate", "--artifact", str(out), f"output_dir={out}", "max_new_tokens=2")
    for more in ((), (), ("-m", "2")):
        assert command(*evaluate, *more)[0] == 0
    rows = json.loads((out / "evaluation.json").read_text())
    assert [row["m"] for row in rows] == [0, 1] and rows[0]["change"] == SteeringArtifact.load(out).id
    assert len(list(out.glob("evaluation-*.json"))) == len(list(out.glob("generations-*.jsonl"))) == 1


def test_progress_knows_the_weights(
    command: Command, tmp_path: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped does not go on with another model; not with one whose upper layers differ, either."""
    from easyedit_split.sweeps.progress import SweepProgress
    from easyedit_split.training.checkpoint import Checkpoint

    def stop(self: Any, *arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    upper = tmp_path / "upper"
    changed = tiny_model("qwen2")
    with torch.no_grad():
        changed.model.layers[2].mlp.up_proj.weight.mul_(1.5)
    changed.save_pretrained(upper)
    tiny_tokenizer().save_pretrained(upper)
    real_step, real_batch = Checkpoint.write, SweepProgress.batch_done

    def step_done(self: Any, step: int, last: bool) -> None:
        real_step(self, step)
        raise KeyboardInterrupt

    def batch_done(self: Any, losses: Any, batches: Any, done: int) -> None:
        self.seconds = 0.0
        real_batch(self, losses, batches, done)
        raise KeyboardInterrupt

    out, art = tmp_path / "run", tmp_path / "art"
    assert command("train", *VECTOR, f"output_dir={art}")[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "step_done", step_done)
        patched.setattr(SweepProgress, "batch_done", batch_done)
        assert command("train", *VECTOR, f"output_dir={out}", "n_epochs=3")[0] == 130
        sweep = ("sweep", "--artifact", str(art), f"output_dir={tmp_path / 'swept'}", "factors=[-1,0,1]")
        assert command(*sweep)[0] == 130
    there = f"model_name_or_path={upper}"
    train = ("train", *VECTOR, f"output_dir={out}", "n_epochs=3", there)
    status, _, errors = command(*train)
    assert status == 2 and "of another run" in errors and "overwrite=true" in errors
    status, _, errors = command(*sweep, there)
    assert status == 2 and "of another sweep" in errors and "overwrite=true" in errors
    assert command(*train, "overwrite=true")[0] == 0
    assert command(*sweep, there, "overwrite=true")[0] == 0


# --- reports ----------------------------------------------------------------------------------------------------------


def _table(change: str, seed: int = 0, factors: Any = None) -> SweepTable:
    rng = np.random.default_rng(seed)
    m = np.linspace(-6, 6, 21) if factors is None else np.asarray(factors, float)
    preference = (0.5 * m / (1 + m**2 / 30))[:, None] + 0.05 * rng.normal(size=(len(m), 12))
    utility = (4 / (1 + m**2 / 20) - 6)[:, None] + 0.05 * rng.normal(size=(len(m), 12))
    log_p = -np.logaddexp(0.0, -utility)
    pos, neg = np.logaddexp(0.0, -preference) - log_p, np.logaddexp(0.0, preference) - log_p
    header = {"artifact": {"id": change, "form": "vector", "site": "layer 1, residual", "origin": {}}}
    return SweepTable(m, pos, neg, "sum", np.full(12, 3.0), np.full(12, 3.0), header)


def test_a_report_takes_nothing_that_is_of_another_change(tmp_path: Path) -> None:
    home = tmp_path / "vector"
    _table("aaaa").save(home / "sweep.parquet")
    save_scores(home / "scores.json", {"wanted": 0.5}, 2.0, "aaaa")
    assert report_run(tmp_path).html.exists()
    spoilt: tuple[tuple[str, Callable[[Path], Any]], ...] = (
        ("scores.json", lambda p: save_scores(p, {"wanted": 0.5}, 2.0, "bbbb")),
        ("sweep_train.parquet", lambda p: _table("bbbb").save(p)),
        ("activations.npz", lambda p: save_activations(p, [-1, 0, 1], [np.ones((4, 3))] * 3, "bbbb")),
        ("promoted.json", lambda p: p.write_text('{"change": "bbbb", "m > 0": []}')),
    )
    for name, write in spoilt:
        kept = (home / name).read_bytes() if (home / name).exists() else None
        write(home / name)
        with pytest.raises(ArtifactError, match=f"{name} is of another change than sweep.parquet beside it: delete it"):
            report_run(tmp_path)
        (home / name).unlink() if kept is None else (home / name).write_bytes(kept)
    (home / "scores.json").write_text('{"wanted": 0.5}')  # as the earlier version wrote it
    assert report_run(tmp_path).html.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY", b"{}"])
def test_broken_activations_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    _table("aaaa").save(tmp_path / "sweep.parquet")
    (tmp_path / "activations.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match="activations.npz is broken") as caught:
        report_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_activations_without_strengths_are_one_sentence(tmp_path: Path) -> None:
    _table("aaaa").save(tmp_path / "sweep.parquet")
    np.savez(tmp_path / "activations.npz", factors=np.zeros(0), activations=np.zeros((0, 3, 2)))
    with pytest.raises(ArtifactError, match="activations.npz is broken"):
        report_run(tmp_path)


def test_a_report_says_where_methods_were_not_measured_alike(tmp_path: Path) -> None:
    for name, seed, model in (("a", 0, "one"), ("b", 1, "two")):
        table = _table(name * 4, seed)
        SweepTable(**{**vars(table), "header": {**table.header, "model": {"name": model}}}).save(
            tmp_path / name / "sweep.parquet"
        )
    text = report_run(tmp_path).markdown.read_text()
    assert "one (unknown) (a); two (unknown) (b)" in text


def test_names_that_fall_together_have_pictures_of_their_own(tmp_path: Path) -> None:
    """Three methods whose names differ in what a file name does not keep, and one called as the common figure."""
    names = ["split lr=0.1", "split_lr_0.1", "Split lr 0.1", "all_sum"]
    for seed, name in enumerate(names):
        _table(name, seed).save(tmp_path / name / "sweep.parquet")
    report = report_run(tmp_path)
    pictures = [p for p in report.figures if p.name.startswith("curves_") and p.suffix == ".svg"]
    assert len({p.name.lower() for p in pictures}) == len(pictures) == 2 * len(names) + 2
    assert len({p.read_bytes() for p in pictures}) == len(pictures), "no picture is shown twice"
    assert len({t.name.lower() for t in report.tables}) == len(report.tables)


def test_a_further_sweep_has_its_own_place_in_the_report(tmp_path: Path) -> None:
    _table("aaaa").save(tmp_path / "v" / "sweep.parquet")
    _table("aaaa", factors=np.linspace(-3, 3, 21)).save(tmp_path / "v" / "sweep-12345678.parquet")
    assert set(report_run(tmp_path).advice) >= {"v", "v, sweep-12345678"}


@pytest.mark.parametrize("name", ["$x^$", "_hidden", "a|b *c* <script>", "$", "[x](y)", "#1 `code`"])
def test_every_name_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    import html

    _table("aaaa").save(tmp_path / name / "sweep.parquet")
    _table("bbbb", 1).save(tmp_path / "other" / "sweep.parquet")
    report = report_run(tmp_path)
    page = report.html.read_text()
    assert html.escape(name) in page and "<script>" not in page
    text = report.markdown.read_text()
    assert "<script>" not in text.replace("\\<", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in rows if "other" in line}
    assert widths and all(line.replace("\\|", "").count("|") in widths for line in rows)
    for file in report.figures:
        if file.suffix == ".svg" and "front" in file.name:
            assert "other" in file.read_text()


def test_labels_in_figures_are_plain() -> None:
    from easyedit_split.analysis.canvas import plain

    assert plain("$x^$") == r"\$x^\$" and plain("_a") == " _a" and plain("a\nb") == "a b"
    assert plain("\udcff") == r"\udcff"


def test_an_argument_that_is_no_text_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs/\udcff"]) == 2
    said = capsys.readouterr().err
    assert r"'runs/\udcff' holds bytes that are no UTF-8 text" in said


def test_a_header_of_another_hand_does_not_stop_a_report(tmp_path: Path) -> None:
    """What a header says of the model, the versions and the origin may be anything that JSON holds."""
    headers: list[dict[str, Any]] = [
        {"model": "m", "versions": None},
        {"model": None, "versions": [1]},
        {"artifact": {"origin": [1]}},
        {"artifact": {"origin": {"objective": "x", "config": [1]}}},
    ]
    for number, header in enumerate(headers):
        replace(_table("v"), header=header).save(tmp_path / str(number) / "sweep.parquet")
    assert "unknown (unknown)" in report_run(tmp_path).markdown.read_text()


def test_a_name_too_long_for_a_file_is_cut(tmp_path: Path) -> None:
    homes = [tmp_path / ("a" * 200) / (letter * 200) for letter in "bc"]
    for seed, home in enumerate(homes):
        _table("v", seed).save(home / "sweep.parquet")
    report = report_run(tmp_path)
    assert len(report.advice) == 4 and all(path.exists() for path in (*report.figures, *report.tables))


def test_a_report_of_a_file_is_refused(tmp_path: Path) -> None:
    _table("v").save(tmp_path / "sweep.parquet")
    with pytest.raises(ArtifactError, match="is a file: give the folder of a run"):
        report_run(tmp_path / "sweep.parquet")
