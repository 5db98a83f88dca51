"""What a user gets wrong on the command line, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.cli import main


def _said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == status
    out, errors = capsys.readouterr()
    if status != 2:
        return out + errors
    lines = [line for line in errors.splitlines() if line.startswith("easyedit-split: ")]
    assert len(lines) == 1 and "usage:" not in errors
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["tune", "--points", "0"], "--points 0 is too few for a sweep: give 3 or more"),
        (["train", "--lr", "0.1"], "--lr is a setting, not an option: write lr=0.1"),
        (["train", "--lr=0.1"], "write lr=0.1"),
        (["train", "--learning-rate", "0.1"], "write lr=0.1"),
        (["train", "--output-dir", "x", "lr=1"], "write output_dir=x"),
        (["train", "--overwrite"], "write overwrite=VALUE"),
        (["train", "--lrr", "1"], "unknown option --lrr: see easyedit-split train --help"),
        (["doctor", "--lr", "1"], "unknown argument '--lr': see easyedit-split doctor --help"),
        (["train", "learning_rate=1"], "unknown key 'learning_rate'; did you mean 'lr'?"),
        (["train", "epochs=1"], "did you mean 'n_epochs'?"),
        (["train", "alpha=1"], "the strength is m: give -m M"),
        (["train", "Rank=1"], "did you mean 'low_rank_dimension'?"),
        (["train", "model=x"], "did you mean 'model_name_or_path'?"),
        (["train", "lr=abc"], "lr = 'abc' is not a number: write lr=0.01"),
        (["train", "n_epochs=many"], "n_epochs = 'many' is not a whole number: write n_epochs=1"),
        (["train", "use_chat_template=maybe"], "is not true or false"),
        (["sweep", "--artifact", "x", "steering_factors=[1]"], "its strengths are factors, as in factors="),
        (["sweep", "--artifact", "x", "multipliers=[1]"], "its strengths are factors, as in factors="),
        (
            ["sweep", "--artifact", "x", "--max-utility-drop", "nan"],
            "max_utility_drop is nan; give a finite number of nats",
        ),
        (["generate", "-m", "2", "--prompt", "x"], "-m 2 is the strength of a change: name its folder with --artifact"),
        (["evaluate", "-m", "2"], "-m 2 is the strength of a change: name its folder with --artifact"),
        (["reproduce", "qwen2.5-7b-instruct", "data_dir=/nowhere/at/all", "--dry-run"], "is no folder"),
    ],
)
def test_what_was_meant_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert said in _said(capsys, *arguments)


def test_nothing_is_trained_at_strength_0_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path, data: Path
) -> None:
    train = ("train", f"model_name_or_path={model}", f"train_data={data}", f"output_dir={tmp_path}", "layers=[1]")
    assert "give one or more finite numbers, not all 0" in _said(capsys, *train, "steering_factors=[0,0]")
    assert not list(tmp_path.glob("layer_*"))


def test_fit_says_what_a_wrong_file_is(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "layer_1.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "h.yaml").write_text("lr: 1")
    pyarrow.parquet.write_table(pyarrow.table({"question": ["q"], "answer": ["a"]}), tmp_path / "pairs.parquet")
    (tmp_path / "half.parquet").write_bytes((tmp_path / "pairs.parquet").read_bytes()[:60])
    for name, said in (
        ("layer_1.safetensors", "is an artifact (a change, not its sweep): give the sweep.parquet"),
        ("empty.parquet", "is empty"), ("h.yaml", "is a hyper-parameter file"), (str(data), "is a file of pairs"),
        ("pairs.parquet", "a table of the columns question, answer, not written by sweep"),
        ("half.parquet", "is not a sweep that can be read"), ("no.parquet", "does not exist"),
    ):  # fmt: skip
        assert said in _said(capsys, "fit", str(tmp_path / name))
    empty = tmp_path / "folder"
    empty.mkdir()
    assert "holds no sweep.parquet: run sweep first" in _said(capsys, "fit", str(empty))


TRAIN = ("train", "layers=[1]", "intervention_method=vector", "batch_size=2", "n_epochs=4")


def test_train_says_what_it_came_to(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    """The numbers are those of a sweep of the training pairs at 0 and at the middle trained strength."""
    from easyedit_split import SteeringArtifact, load_model, load_pairs, sweep

    given = (f"model_name_or_path={model}", f"train_data={data}", f"output_dir={tmp_path}", "lr=0.1")
    said = _said(capsys, *TRAIN, *given, status=0)
    artifact = SteeringArtifact.load(tmp_path)
    table = sweep(*load_model(model), load_pairs(data), artifact, [0.0, 1.0], "mean")
    p, n = table.loss_pos.mean(axis=1), table.loss_neg.mean(axis=1)
    past = (table.loss_neg - table.loss_pos >= 0.6).mean(axis=1)
    expected = (
        f"12 updates; 5 training pairs at m = 0 and m = 1, nats a token: L_p {p[0]:.2f} -> {p[1]:.2f}, "
        f"L_n {n[0]:.2f} -> {n[1]:.2f}; past the margin of 0.6: {past[0]:.0%} -> {past[1]:.0%}"
    )
    assert expected in said and "note: the loss" not in said


def test_an_absurd_rate_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ("model_name_or_path=demo", "train_data=demo:reviews", f"output_dir={tmp_path}", "lr=1e9")
    said = _said(capsys, *TRAIN, *given, "max_num_of_examples=8", status=0)
    assert "note: the loss that was trained grew from" in said and "lower lr (1e+09)" in said


def test_a_model_without_a_template_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    tiny_model("qwen2").save_pretrained(plain)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(plain)
    given = (f"model_name_or_path={plain}", f"train_data={data}", f"output_dir={tmp_path / 'out'}")
    for more in ((), ("use_chat_template=true",)):
        assert "has no chat template: set use_chat_template=false" in _said(capsys, *TRAIN, *given, *more)
    _said(capsys, *TRAIN, *given, "use_chat_template=false", status=0)


def test_strengths_past_what_was_measured_and_empty_prompts_are_said(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    where = f"model_name_or_path={model}"
    _said(capsys, *TRAIN, where, f"train_data={data}", f"output_dir={tmp_path}", status=0)
    ask = ("generate", "--artifact", str(tmp_path), where, "max_new_tokens=2", "--prompt")
    assert "note: m = 2000 is far past the training: the change was trained at up to 2" in _said(
        capsys, *ask, "Hi", "-m", "2000", status=0
    )
    assert "note" not in _said(capsys, *ask, "Hi", "-m", "3", status=0)
    sweep = ("sweep", "--artifact", str(tmp_path), where, f"test_data={data}", f"output_dir={tmp_path}")
    _said(capsys, *sweep, "factors=[-2,0,2]", status=0)
    assert "note: m = 3 is past the sweep: the change was swept from -2 to 2" in _said(
        capsys, *ask, "Hi", "-m", "3", status=0
    )
    assert "note" not in _said(capsys, *ask, "Hi", "-m", "2", status=0)
    assert "note: a prompt is empty" in _said(capsys, *ask, "", "-m", "1", status=0)


def test_evaluate_counts_what_is_asked_and_knows_where_accuracy_means_something(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    shared = ("evaluate", "model_name_or_path=demo", "max_num_of_examples=3", "max_new_tokens=8")
    said = _said(capsys, *shared, "test_data=demo:reviews", "--rubric", "concept", f"output_dir={tmp_path / 'r'}",
                 status=0)  # fmt: skip
    assert "no requests to send" in said and "in the cache" not in said
    assert "open-ended, so texts have no accuracy" in said
    (row,) = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert "accuracy" not in row and "concept" in row and row["change"] is None
    _said(capsys, *shared, "test_data=demo:traits", f"output_dir={tmp_path / 't'}", status=0)
    (row,) = json.loads((tmp_path / "t" / "evaluation.json").read_text())
    assert 0 <= row["accuracy"] <= row["answered"] <= 1


def test_an_estimate_counts_requests_once() -> None:
    from easyedit_split.evaluation.client import ApiJudge, JudgeSettings
    from easyedit_split.evaluation.judges import JudgeItem

    item = JudgeItem("concept", "q", "a", "c")
    found = ApiJudge(JudgeSettings("k")).estimate([item, item, JudgeItem("concept", "q", "b", "c")])
    assert (found.requests, found.cached) == (2, 0)
    assert str(found).startswith("2 requests to send, ")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_kept_replies_may_hold_any_line_break(tmp_path: Path, mark: str) -> None:
    from easyedit_split.storage.reply_cache import ReplyCache

    cache = ReplyCache(tmp_path / "new" / "replies.jsonl")
    assert not (tmp_path / "new").exists(), "nothing is written before there is a reply"
    cache.put("k", f"one{mark}two")
    again = ReplyCache(tmp_path / "new" / "replies.jsonl")
    assert again.get("k") == f"one{mark}two"


def test_a_dry_run_writes_nothing_and_says_how_long(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from easyedit_split.reproduce import run

    def never(*arguments: Any) -> Any:
        raise AssertionError("the model was loaded though nothing can be done yet")

    monkeypatch.chdir(tmp_path)
    only = ("reproduce", "demo", "--only", "reviews/vanilla", "seeds=[0]", "n_test=2", "max_new_tokens=4",
            "n_held_out=4")  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(run, "grid_model", never)
        said = _said(capsys, *only, "--dry-run", status=0)
    assert "1 cells, 1 to run" in said and "time: the time cannot be told before a cell is done" in said
    assert not list(tmp_path.iterdir())
    _said(capsys, *only, "--jobs", "1", status=0)
    held = sorted(p.name for p in tmp_path.rglob("*"))
    more = _said(capsys, *only, "--dry-run", "--only", "traits/vanilla", "--jobs", "1", status=0)
    assert "2 cells, 1 to run" in more and "by the 1 cells that are done" in more
    assert sorted(p.name for p in tmp_path.rglob("*")) == held


def test_check_does_not_judge_by_a_utility_that_is_undefined_unsteered(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import numpy as np

    np.save(tmp_path / "v.npy", np.ones(96, dtype=np.float32))
    check = ("check", str(tmp_path / "v.npy"), "--site", "3", "model_name_or_path=demo", "--pairs", "demo:reviews")
    assert "utility is undefined at m = 0 with reduction='mean'" in _said(capsys, *check, "-m", "50", "reduction=mean")
    assert "\n0.004 " in _said(capsys, *check, "-m", "0.004", status=1)  # a strength keeps its digits


def test_a_sweep_is_refused_before_it_is_measured(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    where, run = f"model_name_or_path={model}", str(tmp_path / "run")
    _said(capsys, *TRAIN, where, f"train_data={data}", f"output_dir={run}", status=0)
    sweep = ("sweep", "--artifact", run, where, f"test_data={data}", f"output_dir={run}")
    assert "factors lists a strength twice (0, 1, 1)" in _said(capsys, *sweep, "factors=[0,1,1]")
    assert "is a folder: name a file in it" in _said(capsys, *sweep, "factors=[0,1]", "--out", str(tmp_path))
    assert "\n-0.004 " in _said(capsys, *sweep, "factors=[-0.004,0]", status=0)
    ask = ("generate", "--artifact", run, where, "--prompt", "Hi")
    assert "nan is not finite" in _said(capsys, *ask, "-m", "nan")
    capsys.readouterr()
    assert main([*ask, "-m", "nan"]) == 2 and "past the sweep" not in capsys.readouterr().out


def test_the_demo_leaves_other_runs_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from laws import noisy

    kept = noisy(tiny_model("qwen2"), "vector", "residual").save(tmp_path / "vector")
    before = kept.read_bytes()
    said = _said(capsys, "demo", "--out", str(tmp_path))
    assert "vector/layer_1.safetensors is of another run (component " in said and "choose another --out" in said
    assert kept.read_bytes() == before
