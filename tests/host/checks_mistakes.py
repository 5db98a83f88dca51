"""What the launcher says of a user's mistakes in EasyEdit's own scripts; run like checks.py, in its process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host.inside import CHECKOUT
from host.processes import change_one_word, make_clone
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.easyedit import launcher
from easyedit_split.errors import ConfigError, HostError, SteeringError

GENERATE, APPLY = "vectors_generate.py", "vectors_apply.py"
MODEL = "qwen2.5-7b-it"
INHERITED = ("PYTHONPATH", "EASYEDIT_HOME", "HYDRA_FULL_ERROR")
METHOD = f"hparams/Steer/experiment_hparams/spilt_experiment/psychopathy/{MODEL}/spilt"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_clone(tmp_path_factory.mktemp("mistakes") / "EasyEdit", CHECKOUT)
    tiny_model("qwen2").save_pretrained(place / "models" / MODEL)
    tiny_tokenizer().save_pretrained(place / "models" / MODEL)
    change_one_word(place, "psychopathy", MODEL)
    return place


def said(clone: Path, monkeypatch: pytest.MonkeyPatch, script: str, *changed: str) -> str:
    """The sentence for a run of `script` that is right but for what `changed` says."""
    monkeypatch.chdir(clone)
    given = {"device": "cpu", "model_name_or_path": f"./models/{MODEL}"}
    if script == GENERATE:
        given |= {"steer_train_hparam_paths": f"[{METHOD}/generate_spilt_lora.yaml]"}
        given |= {"steer_train_dataset": "[psychopathy]", "steer_vector_output_dirs": "[mistaken]"}
    else:
        given |= {"apply_steer_hparam_paths": f"[{METHOD}/apply_spilt.yaml]", "generation_data": "[psychopathy]"}
    given |= dict(argument.split("=", 1) for argument in changed)
    before = [os.environ.get(name) for name in INHERITED]
    with pytest.raises(SteeringError) as caught:
        launcher.main([script, *(f"{key}={value}" for key, value in given.items())])
    assert [os.environ.get(name) for name in INHERITED] == before
    assert not (clone / "mistaken" / "psychopathy").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("script", "changed", "sentence"),
    [
        (GENERATE, "model_name_or_path=./models/no-qwen", "the model './models/no-qwen' cannot be loaded ("),
        (GENERATE, "model_name_or_path=./models/smollm2", "'./models/smollm2' has none of llama, gpt, gemma"),
        (GENERATE, "steer_train_dataset=[powerseeking]", "the data set 'powerseeking' is missing: "),
        (GENERATE, "steer_train_dataset=[psychopatty]", "did you mean 'psychopathy'?"),
        (GENERATE, "steer_train_datset=[psychopathy]", "Could not override 'steer_train_datset'; to append"),
        (GENERATE, "steer_train_hparam_paths=[no.yaml]", "the hyper-parameter file no.yaml does not exist"),
        (APPLY, "steer_vector_load_dir=[vectors/nowhere]", "the vector folder vectors/nowhere does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    clone: Path, monkeypatch: pytest.MonkeyPatch, script: str, changed: str, sentence: str
) -> None:
    assert sentence in said(clone, monkeypatch, script, changed)


def test_a_vector_of_easyedits_own_method_that_is_not_there(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = clone / "own.yaml"
    file.write_text("alg_name: caa\nlayers: [1]\nmultipliers: [1.0]\n", encoding="utf-8")
    sentence = said(clone, monkeypatch, APPLY, "apply_steer_hparam_paths=[own.yaml]", "steer_vector_load_dir=[nowhere]")
    assert sentence.startswith("the vector nowhere/layer_1.pt does not exist")


def test_what_is_no_known_mistake_names_its_place(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    (clone / "broken.py").write_text("\nraise KeyError('oops')\n", encoding="utf-8")
    with pytest.raises(HostError, match=r"stopped with KeyError in .*broken.py, line 2 \('oops'\); 'run --debug'"):
        launcher.main(["broken.py"])
    with pytest.raises(KeyError):
        launcher.main(["--debug", "broken.py"])
    with pytest.raises(ConfigError, match="no script was named"):
        launcher.main(["--debug"])
