"""Every hyper-parameter file that ships: complete, loadable, and the paper's values where the paper has a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyedit_split.easyedit.method_files import read_method_file
from easyedit_split.easyedit.methods import METHODS
from easyedit_split.errors import ConfigError
from easyedit_split.settings.files import load_hparams
from easyedit_split.settings.shipped import DEPTHS, hparams_path, hparams_root, made_for

ROOT = hparams_root()
FORMS = ("vector", "lora", "local_weight")
NAMES = [f"{method}_{form}" for method in ("split", "sft", "reps") for form in FORMS] + ["diffmean_vector"]
LAYERS = {
    "gemma-2-9b-it": 20,
    "qwen2.5-7b-instruct": 14,
    "llama-3.1-8b-instruct": 16,
    "qwen2.5-0.5b-instruct": 12,
    "gemma-2-2b-it": 12,
    "smollm2-135m-instruct": 14,
    "demo": 3,
}
DATASETS = ("psychopathy", "powerseeking", "axbench")
OWN_DATASETS = {"demo": ("reviews", "traits", "concepts"), "smollm2-135m-instruct": (*DATASETS, "warmth")}
FILES = [(model, dataset, name) for model in LAYERS for dataset in OWN_DATASETS.get(model, DATASETS) for name in NAMES]
ANY_FILES = [("any", dataset, name) for dataset in (*DATASETS, "warmth") for name in NAMES]


def test_no_other_file_ships() -> None:
    expected = {ROOT / model / dataset / f"{name}.yaml" for model, dataset, name in (*FILES, *ANY_FILES)}
    assert set(ROOT.rglob("*.yaml")) == expected


@pytest.mark.parametrize(("model", "dataset", "name"), ANY_FILES)
def test_a_file_for_any_model_names_no_layer_and_no_rate(model: str, dataset: str, name: str) -> None:
    path = hparams_path(f"{model}/{dataset}/{name}")
    hp, (method, _, form) = load_hparams(path), name.partition("_")
    assert hp.alg_name == (method if method == "split" else f"unified_{method}")
    assert (hp.layers, hp.layer_share, hp.intervention_method) == ((), 0.5, form)
    assert (hp.step_share is None) == (method == "diffmean")
    assert load_hparams(path, overrides={"layers": [3], "lr": 0.5}).step_share is None


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "any"])
@pytest.mark.parametrize("dataset", [*DATASETS, "warmth"])
@pytest.mark.parametrize("form", FORMS)
def test_every_method_has_the_same_updates_there(model: str, dataset: str, form: str) -> None:
    found = {
        (hp.batch_size, hp.gradient_accumulation_steps, hp.n_epochs, hp.lr, hp.step_share, hp.steering_factors)
        for method in ("split", "sft", "reps")
        for hp in [load_hparams(hparams_path(f"{model}/{dataset}/{method}_{form}"))]
    }
    assert len(found) == 1


def test_depths_are_known_for_every_folder() -> None:
    assert set(DEPTHS) == {path.name for path in ROOT.iterdir() if path.is_dir()} - {"any", "__pycache__"}
    for model, layer in LAYERS.items():
        assert made_for(f"hparams/{model}/x/split_lora.yaml") == (model, DEPTHS[model])
        assert layer < DEPTHS[model]
    assert made_for("runs/mine.yaml") is None


@pytest.mark.parametrize(("model", "dataset", "name"), FILES)
def test_file_loads_strictly_in_both_phases(model: str, dataset: str, name: str) -> None:
    path = hparams_path(f"{model}/{dataset}/{name}")
    method, _, form = name.partition("_")
    train, apply = load_hparams(path, "generate"), load_hparams(path, "apply")
    assert train.alg_name == apply.alg_name == (method if method == "split" else f"unified_{method}")
    expected = 0 if (model, dataset) == ("demo", "traits") else LAYERS[model]
    assert train.layers == apply.layers == (expected,)
    assert train.intervention_method == form
    assert apply.multipliers == (1.0,)
    assert apply.concept_id == 0
    assert train.train_config().steering_factors
    for phase in ("train", "apply"):
        assert read_method_file(path, phase, METHODS) is not None


# (file, lambda_p, lambda_n, gamma, theta, lr, epochs, batch, accumulation), read off the published table by hand
PAPER = [
    ("gemma-2-9b-it/psychopathy/split_vector", 1.0, 0.5, 8.0, 0.3, 0.08, 2, 4, 1),
    ("gemma-2-9b-it/powerseeking/split_local_weight", 1.0, 0.5, 5.0, 0.4, 0.01, 2, 2, 2),
    ("gemma-2-9b-it/axbench/split_lora", 1.0, 0.5, 5.0, 0.45, 0.04, 12, 2, 2),
    ("qwen2.5-7b-instruct/psychopathy/split_lora", 1.0, 0.5, 6.0, 0.4, 0.01, 1, 4, 2),
    ("qwen2.5-7b-instruct/psychopathy/split_vector", 1.0, 0.6, 4.0, 0.5, 0.08, 2, 4, 1),
    ("qwen2.5-7b-instruct/axbench/split_vector", 1.0, 0.6, 6.0, 0.5, 0.08, 18, 2, 2),
]


@pytest.mark.parametrize("row", PAPER, ids=[row[0] for row in PAPER])
def test_paper_values(row: tuple) -> None:
    hparams = load_hparams(hparams_path(row[0]), "generate")
    config, terms = hparams.train_config(), hparams.objective_parameters()
    assert (terms["lambda_p"], terms["lambda_n"], terms["gamma"], terms["theta"]) == row[1:5]
    assert (config.lr, config.n_epochs, config.batch_size, config.gradient_accumulation_steps) == row[5:]


def test_vectors_without_component_sit_at_the_block_output() -> None:
    at_block = load_hparams(hparams_path("gemma-2-9b-it/psychopathy/split_vector"))
    at_linear = load_hparams(hparams_path("gemma-2-9b-it/axbench/split_vector"))
    assert (at_block.component, at_linear.component) == ("residual", "mlp.down_proj")


def test_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'demo/reviews/split_lora'"):
        hparams_path("demo/reviews/split_lorra")


@pytest.mark.parametrize("section", ["", "generate:\n  ", "apply:\n  "])
def test_misspelt_key_is_an_error_that_names_the_right_one(tmp_path: Path, section: str) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text(f"alg_name: split\nlayers: [1]\n{section}multiplierz: [1.0]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"typo\.yaml.*'multiplierz'.*'multipliers'"):
        read_method_file(path, "apply" if "apply" in section else "train", METHODS)


def test_easyedit_slips_are_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "apply_spilt.yaml"
    path.write_text("alg_name: split\nlayers: [14]\nmultipliers: [1.0]\nconcepts_id: 3\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="concepts_id is read as concept_id"):
        values = read_method_file(path, "apply", METHODS)
    assert values == {"alg_name": "split", "layers": [14], "multipliers": [1.0], "concept_id": 3}


def test_key_given_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("alg_name: split\nlora_alpha: 32\nlora_alpha: 32\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'lora_alpha' is given twice"):
        read_method_file(path, "train", METHODS)


def test_files_of_other_methods_are_left_to_easyedit(tmp_path: Path) -> None:
    path = tmp_path / "caa.yaml"
    path.write_text("alg_name: caa\nwhatever: 1\n", encoding="utf-8")
    assert read_method_file(path, "train", METHODS) is None
