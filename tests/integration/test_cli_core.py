"""The command line on a tiny model's folder: train, sweep, generate, doctor, and what a user can get wrong.

A user's mistake is exit status 2, one sentence on standard error, and nothing half-written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS
from tiny import tiny_model, tiny_tokenizer

from easyedit_split import SteeringArtifact, SweepTable
from easyedit_split.changes.forms import FORMS
from easyedit_split.cli import main
from easyedit_split.errors import SteeringError


def _train(model: Any, data: Any, out: Any, *more: str) -> list[str]:
    keys = {"model_name_or_path": model, "train_data": data, "output_dir": out}
    fixed = [
        "layers=[1]",
        "n_epochs=1",
        "batch_size=2",
        "intervention_method=vector",
        "intervention_components=mlp_mid",
    ]
    return ["train", *fixed, *(f"{k}={v}" for k, v in keys.items()), *more]


def _refused(capsys: pytest.CaptureFixture[str], arguments: list[str], *contained: str) -> str:
    """Status 2 and one sentence, the last thing on standard error, that holds each of `contained`."""
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("easyedit-split: ") and ": note: " not in line]
    assert len(said) == 1, error
    assert error.rstrip().splitlines()[-1] == said[0]
    assert "Traceback" not in error
    for part in contained:
        assert part in said[0]
    return said[0]


@pytest.mark.parametrize("form", FORMS)
def test_train_sweep_generate(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    out = tmp_path / "out"
    assert main(_train(model, data, out, f"intervention_method={form}", "lr=0.05")) == 0
    printed = capsys.readouterr().out
    assert f"layer 1: {form} at mlp.down_proj, 5 pairs -> {out / 'layer_1.safetensors'}" in printed
    artifact = SteeringArtifact.load(out)
    assert (artifact.form, artifact.site.layer) == (form, 1)
    assert artifact.origin["objective"]["name"] == "split"
    assert not list(out.glob(".*checkpoint*")) and not list(out.glob("*.part"))

    shared = [f"model_name_or_path={model}", f"test_data={data}", "factors=[-2,0,2]"]
    table_file = tmp_path / "deep" / "table.parquet"
    assert main(["sweep", "--artifact", str(out), "--out", str(table_file), *shared]) == 0
    assert "5 pairs, nats (sum), 0 undefined utility points" in capsys.readouterr().out
    table = SweepTable.load(table_file)
    assert table.factors.tolist() == [-2.0, 0.0, 2.0]
    assert table.loss_pos.shape == (3, 5) and bool(np.isfinite(table.utility()).all())

    ask = ["--prompt", "Hi", "--prompt", "What now?", f"model_name_or_path={model}", "max_new_tokens=4"]
    assert main(["generate", "--artifact", str(out), "-m", "0", "-m", "3", *ask]) == 0
    steered = capsys.readouterr().out
    assert main(["generate", *ask]) == 0
    plain = capsys.readouterr().out
    assert steered.count("# m = ") == 2 and plain.startswith("# unsteered")
    assert steered.split("# m = 3")[0].removeprefix("# m = 0") == plain.removeprefix("# unsteered")


def test_the_sweep_at_zero_is_the_plain_model(model: Path, data: Path, tmp_path: Path) -> None:
    """Losses of the table at m = 0 against the model's own, one answer a call."""
    from easyedit_split.data.tokens import Encoder
    from easyedit_split.models.loading import load_model
    from easyedit_split.scoring.scorer import sequence_nll

    assert main(_train(model, data, tmp_path)) == 0
    arguments = ["sweep", "--artifact", str(tmp_path), f"model_name_or_path={model}", f"test_data={data}"]
    assert main([*arguments, "factors=[0]", f"output_dir={tmp_path}"]) == 0
    table = SweepTable.load(tmp_path / "sweep.parquet")
    loaded, tokenizer = load_model(model)
    for i, pair in enumerate(Encoder(tokenizer).pairs(TEXT_PAIRS)):
        assert table.loss_pos[0, i] == pytest.approx(sequence_nll(loaded, pair.prompt, pair.matching, "sum"), rel=1e-5)
        assert table.loss_neg[0, i] == pytest.approx(
            sequence_nll(loaded, pair.prompt, pair.not_matching, "sum"), rel=1e-5
        )


def test_a_shipped_file_with_the_demo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    more = ["model_name_or_path=demo", "train_data=demo:reviews", f"output_dir={out}", "n_epochs=1"]
    assert main(["train", "demo/reviews/split_vector", *more, "max_num_of_examples=8"]) == 0
    assert "layer 3: vector at mlp.down_proj, 8 pairs" in capsys.readouterr().out
    assert sorted(p.name for p in out.glob("layer_*")) == ["layer_3.pt", "layer_3.safetensors"]


def test_diff_mean_from_the_command_line(model: Path, data: Path, tmp_path: Path) -> None:
    assert main(_train(model, data, tmp_path, "alg_name=unified_diffmean", "intervention_components=null")) == 0
    assert SteeringArtifact.load(tmp_path).site.component == "residual"


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor"])
    out = capsys.readouterr().out
    assert status in (0, 1)
    assert ("missing" in out) == (status == 1)
    for part in ("torch", torch.__version__, "transformers", "device: ", "EasyEdit: "):
        assert part in out


def test_as_a_program(tmp_path: Path) -> None:
    """`python -m easyedit_split`: the exit status and the sentence reach the shell."""
    done = subprocess.run(
        [sys.executable, "-m", "easyedit_split", "train", "lerning_rate=3"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "unknown key 'lerning_rate'" in done.stderr
    assert done.stdout == ""


# --- bad input --------------------------------------------------------------------------------------------------------

ROW = '{"question": "q", "matching": "yes", "not_matching": "no"}\n'


@pytest.mark.parametrize(
    ("name", "content", "contained"),
    [
        ("a.jsonl", None, ["a.jsonl does not exist", "check the path"]),
        ("a.csv", "question,good,bad\nq,yes,no\n", ["no column for the matching answer", "question, good, bad"]),
        ("a.jsonl", ROW + '{"question": "q", "matching": "", "not_matching": "no"}\n', ["line 2", "is empty", "drop"]),
        ("a.jsonl", ROW + "oops\n", ["line 2 is not JSON", "fix or remove it"]),
        ("a.jsonl", ROW + ROW.replace('no"', 'yes"'), ["line 2", "both answers are 'yes'"]),
        ("a.jsonl", ROW.replace('"q"', json.dumps("x" * 300)), ["pair 0", "context is 256", "shorten"]),
        ("a.txt", ROW, ["a.txt is not a data file"]),
        ("a.jsonl", "", ["holds no rows"]),
    ],
)
def test_data_that_cannot_be_used(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    contained: list[str],
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    out = tmp_path / "out"
    _refused(capsys, _train(model, path, out), *contained)
    assert not out.exists() or not any(out.rglob("*.safetensors"))
    assert main(_train(model, path, out)) == 2


@pytest.mark.parametrize(
    ("more", "contained"),
    [
        (["layers=[4]"], ["layer 4 is out of range", "layers 0 to 3"]),
        (["layers=[-1]"], ["layer -1 is out of range"]),
        (["layers=[]"], ["no layer named: set layers=[N]"]),
        (
            ["intervention_components=residual", "intervention_method=lora"],
            ["form 'lora' needs a linear map", "use form"],
        ),
        (["intervention_components=mlp.w2"], ["no linear module for 'mlp.w2'", "by hand"]),
        (["intervention_method=matrix"], ["unknown form 'matrix'"]),
        (["intervention_method=lora", "low_rank_dimension=99"], ["rank 99 is out of range"]),
        (["lerning_rate=1"], ["unknown key 'lerning_rate'"]),
        (["n_epoch=1"], ["did you mean 'n_epochs'"]),
        (["lr=0"], ["lr = 0.0 is out of range: give a number above 0"]),
        (["lr=quick"], ["lr = 'quick' is not a number"]),
        (["margin_penalty_weight=-1"], ["gamma = -1.0 is out of range"]),
        (["steering_factors=[.nan]"], ["steering_factors", "finite"]),
        (["alg_name=spilt"], ["did you mean 'split'"]),
        (["dtype=float8"], ["dtype 'float8' is unknown"]),
        (["device=gpu"], ["device 'gpu' is unknown"]),
        (["device=cuda:99"], ["device 'cuda:99' is not available"]),
        (["concept_id=7"], ["concept_id 7 is not in the data"]),
        (["model_name_or_path=./nowhere"], ["model folder './nowhere' does not exist"]),
        (["output_dir="], ["no folder to write to: set output_dir=FOLDER"]),
        (["train_data="], ["no pairs named: set train_data=FILE"]),
        (["train_data=demo:review"], ["no task 'review'; did you mean 'reviews'"]),
        (["model_name_or_path="], ["no model named: set model_name_or_path=FOLDER"]),
        (["nowhere.yaml"], ["no hyper-parameter file named 'nowhere.yaml'"]),
        (["lr=[1"], ["the value of lr", "is not YAML"]),
    ],
)
def test_settings_that_cannot_be_used(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], contained: list[str]
) -> None:
    out = tmp_path / "out"
    _refused(capsys, _train(model, data, out, *more), *contained)
    assert not out.exists() or not any(p.is_file() and p.suffix in (".safetensors", ".pt") for p in out.rglob("*"))


def test_a_broken_model_folder(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("model.safetensors", b"\x00" * 50), ("config.json", b"{"), ("tokenizer.json", b"{")):
        broken = tmp_path / name
        shutil.copytree(model, broken)
        (broken / name).write_bytes(content)
        _refused(capsys, _train(broken, data, tmp_path / "out"), "cannot be loaded", "give a model folder or a hub id")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.safetensors"))


def test_a_loss_that_is_not_finite_keeps_the_last_good_change(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third step is spoilt; the change of the second is kept aside, and no result is written."""
    from easyedit_split.training import trainer

    real, calls = trainer._Loop._losses, []

    def losses(self: Any, draw: Any) -> Any:
        calls.append(1)
        found = real(self, draw)
        if len(calls) == 3:
            found.wanted_sum.fill_(float("nan"))
        return found

    monkeypatch.setattr(trainer._Loop, "_losses", losses)
    out = tmp_path / "out"
    said = _refused(
        capsys, _train(model, data, out, "steering_factors=[2]"), "step 2", "m = 2", "not finite", "lower lr"
    )
    kept = out / "last_good" / "layer_1.safetensors"
    assert str(kept) in said
    assert bool(SteeringArtifact.load(kept).delta.tensors()["db"].abs().max() > 0)
    assert not (out / "layer_1.safetensors").exists()
    monkeypatch.undo()
    assert main(_train(model, data, out, "lr=0.001")) == 0  # the advice can be followed at once


def test_a_kill_and_the_same_command_again(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from easyedit_split.training import checkpoint, trainer

    whole, out = tmp_path / "whole", tmp_path / "out"
    more = ["dropout=0.1", "n_epochs=3"]
    assert main(_train(model, data, whole, *more)) == 0
    real, calls = trainer._Loop._losses, []

    def losses(self: Any, draw: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, draw)

    monkeypatch.setattr(checkpoint.Checkpoint, "step_done", lambda self, step, last: self.write(step))
    monkeypatch.setattr(trainer._Loop, "_losses", losses)
    assert main(_train(model, data, out, *more)) == 130
    assert not list(out.glob("layer_*"))
    assert main(_train(model, data, out, *more)) == 0
    assert len(calls) == 5 + 9 - 4  # nine steps in all, four of them done before
    one, other = (SteeringArtifact.load(f).delta.tensors() for f in (whole, out))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_sweep_and_generate_refuse_what_does_not_fit(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(_train(model, data, out)) == 0
    other = tmp_path / "other"
    tiny_model("llama").save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    table = tmp_path / "t.parquet"
    sweep = ["sweep", "--artifact", str(out), "--out", str(table), f"test_data={data}", "factors=[0,1]"]
    generate = ["generate", "--artifact", str(out), "--prompt", "Hi", f"model_name_or_path={model}"]
    for arguments, contained in (
        ([*sweep, f"model_name_or_path={other}"], ["qwen2", "llama", "was made for"]),
        ([*sweep, f"model_name_or_path={model}", "factors=[.inf]"], ["factors holds inf"]),
        ([*sweep, f"model_name_or_path={model}", "test_data=x.jsonl"], ["x.jsonl does not exist"]),
        ([*sweep, f"model_name_or_path={model}", "reduction=max"], ["give 'sum' or 'mean'"]),
        (["sweep", "--artifact", str(tmp_path), *sweep[3:]], ["does not hold an artifact"]),
        ([*generate, "-m", "nan"], ["strength m1 = nan is not finite"]),
        ([*generate, "max_new_tokens=0"], ["max_new_tokens = 0"]),
        ([*generate, "max_new_tokens=250"], ["question 0", "context of 256"]),
        (["generate", "--prompts", str(tmp_path / "no.txt")], ["no.txt cannot be read"]),
        (["generate", f"model_name_or_path={model}"], ["no question given"]),
    ):
        _refused(capsys, arguments, *contained)
    assert not table.exists()


def test_debug_shows_where(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SteeringError, match="unknown key"):
        main(["train", "--debug", "lerning_rate=1"])


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "train" in capsys.readouterr().out
    assert main(["trian"]) == 2
    assert "unknown command 'trian'; did you mean 'train'?" in capsys.readouterr().err
