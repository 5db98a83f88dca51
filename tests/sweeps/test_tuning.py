"""The search for settings: held-out pairs alone, the same number of tries, resumed, and a file as its result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.cli import main
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.errors import ConfigError, DataError
from easyedit_split.settings.files import load_hparams
from easyedit_split.settings.hyperparameters import Hyperparameters
from easyedit_split.sweeps import tuning
from easyedit_split.sweeps.tuning import Try, best_try, candidates, tune, tuned_file

PAIRS = [PreferencePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(8)]
HP = Hyperparameters(layers=(1,), n_epochs=2, batch_size=4, lr=0.05)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama", layers=3)


def run(model: Any, folder: Path, hp: Hyperparameters = HP, **options: Any) -> list[Try]:
    return tune(hp, model, tiny_tokenizer(), PAIRS, folder, **{"tries": 3, **options})


def test_the_first_setting_is_the_files_own_and_no_setting_comes_twice() -> None:
    for name in ("split", "unified_sft", "unified_reps"):
        hp = replace(HP, alg_name=name)
        found = candidates(hp, 10)
        assert found[0] == {key: getattr(hp, key) for key in found[0]}
        assert len({tuple(v.items()) for v in found}) == len(found) == 10
        assert set(found[0]) == set(tuning.TUNED if name == "split" else tuning.TUNED[:2])
    assert candidates(HP, 10) == candidates(HP, 10)


def test_test_pairs_are_never_seen_and_the_best_is_the_highest_gain(model: Any, tmp_path: Path) -> None:
    found = run(model, tmp_path)
    assert len(found) == 3
    assert all(t.gain is not None and t.low <= t.high for t in found)  # type: ignore[operator]
    assert best_try(found).gain == max(t.gain for t in found)  # type: ignore[type-var]


def test_tries_that_ended_are_not_run_again(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(model, tmp_path, tries=2)
    trained = []
    train_layer = tuning.train_layer
    monkeypatch.setattr(tuning, "train_layer", lambda *a, **k: (trained.append(a[0]), train_layer(*a, **k))[1])
    again = run(model, tmp_path, tries=3)
    assert again[:2] == first
    assert len(trained) == 1
    next((tmp_path / "tries").iterdir()).write_text("{")  # broken: that one is run again
    assert run(model, tmp_path, tries=3) == again
    assert len(trained) == 2
    run(model, tmp_path, replace(HP, seed=1), tries=1)  # other inputs are another search
    assert len(trained) == 3


def test_a_setting_that_fails_is_left_and_all_failing_is_an_error(model: Any, tmp_path: Path) -> None:
    bad = replace(HP, lr=1e38, steering_factors=(1e38,))
    with pytest.raises(ConfigError, match="all 2 settings failed, the first with: step"):
        run(model, tmp_path, bad, tries=2)
    assert best_try([Try({}, None, failure="x"), Try({"lr": 1.0}, 0.0, 0.0, 0.0)]).values == {"lr": 1.0}


def test_several_layers_together_are_one_change(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hp = replace(HP, layers=(0, 2), joint=True)
    trained = []
    train_layer = tuning.train_layer
    monkeypatch.setattr(tuning, "train_layer", lambda *a, **k: trained.append(train_layer(*a, **k)) or trained[-1])
    found = run(model, tmp_path, hp, tries=2)
    assert [str(artifact.site) for artifact in trained] == 2 * ["layers 0 and 2, residual"]
    alone = run(model, tmp_path, replace(HP, layers=(0,)), tries=2)
    assert all(t.gain is not None for t in found) and {t.gain for t in found}.isdisjoint(t.gain for t in alone)
    path = tmp_path / "tuned.yaml"
    path.write_text(tuned_file(hp, best_try(found), "found"))
    assert load_hparams(path).layer_groups == ((0, 2),)


def test_what_cannot_be_tuned(model: Any, tmp_path: Path) -> None:
    for hp, message in (
        (replace(HP, alg_name="unified_diffmean"), "nothing to tune"),
        (replace(HP, layers=(0, 1)), r"layers = \[0, 1\] is 2 changes, and here one is trained"),
        (replace(HP, layers=(), joint=True), r"layers = \[\] is 0 changes"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(model, tmp_path, hp)
    with pytest.raises(ConfigError, match="tries = 0"):
        run(model, tmp_path, tries=0)
    with pytest.raises(DataError, match="too few to tune on"):
        tune(HP, model, tiny_tokenizer(), PAIRS[:7], tmp_path)


def test_the_result_is_a_hyper_parameter_file(tmp_path: Path) -> None:
    hp = replace(HP, intervention_method="lora", low_rank_dimension=2, model_name_or_path="here", train_data="x.csv")
    best = Try({"lr": 0.2, "n_epochs": 4, "margin_threshold": 1.0, "margin_penalty_weight": 8.0}, 3.0)
    path = tmp_path / "tuned.yaml"
    path.write_text(tuned_file(hp, best, "found"))
    back = load_hparams(path)
    expected = replace(hp, **best.values, model_name_or_path="", train_data="")  # type: ignore[arg-type]
    assert back == expected
    for name in ("unified_sft", "unified_reps"):
        text = tuned_file(replace(hp, alg_name=name), replace(best, values={"lr": 0.2, "n_epochs": 4}), "found")
        assert "margin" not in text


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["model_name_or_path=demo", "train_data=demo:reviews", "max_num_of_examples=8", f"output_dir={tmp_path}"]
    assert main(["tune", "any/warmth/split_vector", *common, "n_epochs=1", "--tries", "2"]) == 0
    out = capsys.readouterr().out
    assert "note: layer 3: 0.5 of the model's 6 blocks" in out
    assert "note: lr " in out
    assert "2 settings tried on a quarter of 8 training pairs" in out
    assert load_hparams(tmp_path / "tuned.yaml").layers == (3,)
