"""What an EasyEdit user pastes: `examples/run_SPILT.py` of the checkout, with one word changed in its method files, and
this project's counterpart, `examples/run_split.py`.

A tiny model of 16 layers stands under a name that EasyEdit ships files for.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from host.processes import HOMES, LAUNCHED, PLAIN, ROOT, change_one_word, lazy_registry, make_clone, run
from tiny import tiny_model, tiny_tokenizer

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not HOMES, reason="EASYEDIT_HOME names no checkout of EasyEdit"),
]

MODEL = "qwen2.5-7b-it"


@pytest.fixture(scope="module")
def clone(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_clone(tmp_path_factory.mktemp("pasted") / "EasyEdit", home)
    folder = place / "models" / MODEL
    tiny_model("qwen2", layers=16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    change_one_word(place, "psychopathy", MODEL)
    return place


def pasted(form: str, mode: str) -> list[str]:
    return [
        "examples/run_SPILT.py", "--dataset", "psychopathy", "--method", "spilt", "--model_name", MODEL,
        "--intervention_method", form, "--mode", mode, "--multipliers", "1.0", "--device", "cpu", "--base_dir", ".",
    ]  # fmt: skip


def check_results(clone: Path, form: str) -> None:
    vectors = clone / "vectors" / MODEL / "spilt" / "psychopathy"
    assert (vectors / f"split_{form}" / "layer_14.safetensors").is_file()
    assert [file.name for file in (vectors / f"spilt_{form}").iterdir()] == ["train.log"]
    written = clone / "generation" / MODEL / "spilt" / "psychopathy" / f"spilt_{form}" / "m1.0"
    results = json.loads((written / "psychopathy_results.json").read_text(encoding="utf-8"))
    assert len(results) == 5 and all(row["pred"] for row in results)


def test_run_spilt_through_the_launcher(home: Path, clone: Path) -> None:
    """Both modes in one go; the registration reaches the programs that it starts, on every commit."""
    done = run([*LAUNCHED, *pasted("lora", "both")], clone, home)
    assert done.status == 0, done.output
    check_results(clone, "lora")


def test_run_spilt_alone(home: Path, clone: Path) -> None:
    """`python run_SPILT.py` with the Hydra plugin, generate and then apply, where the checkout can be imported."""
    if not lazy_registry(home):
        pytest.skip("this checkout cannot be imported without the launcher (or, for the oldest, without sae_lens)")
    for mode in ("generate", "apply"):
        done = run([*PLAIN, *pasted("vector", mode)], clone, home)
        assert done.status == 0, done.output
    check_results(clone, "vector")


RUNNER = [*PLAIN, str(ROOT / "examples" / "run_split.py"), "--dataset", "psychopathy", "--model_name", MODEL]


def test_run_split_takes_easyedits_names_and_says_what_was_done(home: Path, clone: Path) -> None:
    options = ["--method", "spilt", "--intervention_method", "lora", "--limit", "2", "--layout", "easyedit"]
    done = run([*RUNNER, *options], clone, home)
    assert done.status == 0, done.output
    assert "note: EasyEdit's method spilt is split here" in done.output
    vectors = clone / "vectors" / MODEL / "spilt" / "psychopathy" / "spilt_lora"
    assert (vectors / "train.log").stat().st_size > 0
    state = torch.load(vectors / "layer_14.pt", weights_only=True)
    assert state["lora_A"].shape == (48, 4) and state["r"] == state["alpha"] == 4

    # EasyEdit's own SPILT applies that file, through its own runner and from its own folders; in float32, as it is
    experiments = clone / "hparams" / "Steer" / "experiment_hparams" / "spilt_experiment"
    settings = experiments / "apply_config.yaml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("bfloat16", "float32"), encoding="utf-8")
    change_one_word(clone, "psychopathy", MODEL, "split", "spilt")
    done = run([*LAUNCHED, *pasted("lora", "apply")], clone, home)
    change_one_word(clone, "psychopathy", MODEL)
    assert done.status == 0, done.output


def test_run_split_skips_what_is_missing_and_goes_on(home: Path, clone: Path) -> None:
    trained = run([*RUNNER, "--method", "caa", "--intervention_method", "vector", "--mode", "generate"], clone, home)
    assert trained.status == 0, trained.output
    done = run([*RUNNER, "--method", "all", "--intervention_method", "vector", "--mode", "loss"], clone, home)
    assert done.status == 1, done.output
    ends = [line.split()[3] for line in done.output.splitlines() if " loss  " in line]
    assert ends == ["skipped", "skipped", "skipped", "done"]
    assert done.output.count("warning: loss skipped: the vector folder ") == 3
    written = clone / "vectors" / MODEL / "diffmean" / "psychopathy" / "unified_diffmean_vector" / "train_losses.csv"
    assert len(written.read_text(encoding="utf-8").splitlines()) == 1 + 5
