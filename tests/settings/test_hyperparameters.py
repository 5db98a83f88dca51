"""Settings: EasyEdit's two layouts, and an error for each value that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easyedit_split.errors import ConfigError
from easyedit_split.settings.files import hyperparameters, load_hparams
from easyedit_split.settings.hyperparameters import Hyperparameters, TrainConfig

MERGED = """
alg_name: split
layers: [3]
intervention_method: lora
intervention_components: mlp_mid
generate:
  pos_loss_weight: 1.5
  neg_loss_weight: 0.1
  margin_penalty_weight: 2
  margin_threshold: 0.4
  preference_pairs: [orig_add, orig_sub]
  steering_factors: [1, 2.5]
  low_rank_dimension: 8
  lr: 1e-2
apply:
  multipliers: [1.0, -2]
  concept_id: 0
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "h.yaml"
    path.write_text(text)
    return path


def test_the_merged_layout(tmp_path: Path) -> None:
    hp = load_hparams(_write(tmp_path, MERGED))
    assert (hp.layers, hp.component, hp.multipliers, hp.concept_id) == ((3,), "mlp.down_proj", (1.0, -2.0), 0)
    assert hp.objective_parameters() == {"lambda_p": 1.5, "lambda_n": 0.1, "gamma": 2.0, "theta": 0.4}
    config = hp.train_config()
    assert (config.lr, config.rank, config.steering_factors) == (0.01, 8, (1.0, 2.5))
    assert (config.directions, config.positions) == (("add", "sub"), "all")


def test_phases_of_the_merged_layout(tmp_path: Path) -> None:
    path = _write(tmp_path, MERGED)
    assert load_hparams(path, "generate").multipliers == Hyperparameters().multipliers
    assert load_hparams(path, "apply").lr == Hyperparameters().lr
    assert load_hparams(path, overrides={"lr": 0.5, "exclude_bos": True}).train_config().positions == "after_prefix"
    assert load_hparams(path, overrides={"lr": 0.5}).lr == 0.5


def test_the_flat_layout_is_the_same(tmp_path: Path) -> None:
    flat = "\n".join(line.strip() for line in MERGED.splitlines() if line not in ("generate:", "apply:"))
    (tmp_path / "flat").mkdir()
    one, other = load_hparams(_write(tmp_path, MERGED)), load_hparams(_write(tmp_path / "flat", flat))
    assert one == other


def test_a_section_may_be_empty_but_not_something_else(tmp_path: Path) -> None:
    assert load_hparams(_write(tmp_path, "alg_name: split\ngenerate:\n")).alg_name == "split"
    with pytest.raises(ConfigError, match=r"section 'generate' holds \['lr'\] where keys with values are needed"):
        load_hparams(_write(tmp_path, "generate: [lr]\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1\nlayer: [3]", "unknown key 'lerning_rate'.* and 'layer'; did you mean 'layers'"),
        ("generate:\n  n_epoch: 1", "unknown key 'n_epoch'; did you mean 'n_epochs'"),
        ("1: 2", "unknown key 1"),
        ("alg_name: spilt", "alg_name 'spilt' is unknown; did you mean 'split'"),
        ("lr: fast", "lr = 'fast' is not a number"),
        ("lr: true", "lr = True is not a number"),
        ("lr: [1, 2]", r"lr = \[1, 2\] is not a number"),
        ("n_epochs: 1.5", "n_epochs = 1.5 is not a whole number"),
        ("n_epochs: .inf", "n_epochs = inf is not a whole number"),
        ("layers: [a]", "layers = 'a' is not a whole number"),
        ("layers: null", "layers = None is not a whole number"),
        ("exclude_bos: 1", "exclude_bos = 1 is not true or false"),
        ("dtype: [bf16]", "dtype = .'bf16'. is not a text"),
        ("alg_name: {a: 1}", "alg_name = {'a': 1} is not a text"),
        ("preference_pairs: [orig_ad]", "preference_pairs holds 'orig_ad'; did you mean 'orig_add'"),
        ("reduction: max", "reduction = 'max' is unknown: give 'sum' or 'mean'"),
        ("max_num_of_examples: -1", "max_num_of_examples = -1 is out of range"),
        ("max_new_tokens: 0", "max_new_tokens = 0 is out of range"),
        ("lr: 1\nlr: 2", "key 'lr' is given twice: keep one"),
        ("generate:\n  lr: 1\n  lr: 2", "key 'lr' is given twice"),
        ("label_smoothing: 0.1", "label_smoothing = 0.1 is not supported: remove it, or set 0"),
        ("intervention_positions: last", "intervention_positions = 'last' is not supported"),
        ("- a", "holds a list where keys with values are needed"),
        ("", "holds a NoneType where keys with values are needed"),
        ("a: [", "is not YAML: "),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML: "),
        ("? [a]\n: 1", "is not YAML|unknown key"),
    ],
)
def test_each_mistake_in_a_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_hparams(_write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "h.yaml" in str(caught.value) or "section" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read .*: check the path"):
            load_hparams(path)


def test_easyedits_slips_are_read_with_a_note() -> None:
    with pytest.warns(UserWarning, match="concepts_id is read as concept_id"):
        assert hyperparameters({"concepts_id": 4}).concept_id == 4
    with pytest.warns(UserWarning, match="'weight' is read as 'local_weight'"):
        assert hyperparameters({"intervention_method": "weight"}).intervention_method == "local_weight"
    with pytest.warns(UserWarning, match="lora_alpha has no effect"):
        hyperparameters({"lora_alpha": 32})
    assert hyperparameters({"dtype": "bf16"}).dtype == "bfloat16"
    assert hyperparameters({"layers": 3, "multipliers": 2}).layers == (3,)
    assert hyperparameters({"use_cache": False, "label_smoothing": 0.0, "gemma": 1}) == Hyperparameters()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alg_name": "unified_reps", "beta": 0.1}, "beta = 0.1 is not supported: remove it, or set 1"),
        ({"alg_name": "unified_diffmean", "intervention_method": "lora"}, "a vector at the residual stream"),
        ({"alg_name": "unified_diffmean", "intervention_components": "mlp_mid"}, "a vector at the residual stream"),
        ({"max_utility_drop": 1.0}, "unknown key 'max_utility_drop'"),
        ({"factors": "0,1,2"}, r"factors = '0,1,2' is no list: write \[0,1,2\]"),
    ],
)
def test_what_a_method_would_ignore_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hyperparameters(values)


@pytest.mark.parametrize(
    ("method", "component", "expected"),
    [
        ("vector", None, "residual"),
        ("lora", None, "mlp.down_proj"),
        ("vector", "mlp_mid", "mlp.down_proj"),
        ("lora", "self_attn.q_proj", "self_attn.q_proj"),
    ],
)
def test_the_component_a_file_means(method: str, component: str | None, expected: str) -> None:
    values = {"intervention_method": method, "intervention_components": component}
    assert hyperparameters(values).component == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", 0), ("n_epochs", 1.5), ("batch_size", 0), ("gradient_accumulation_steps", 0), ("rank", 0),
        ("lr", 0.0), ("lr", float("nan")), ("lr", -1.0), ("lr", True), ("weight_decay", -0.1), ("dropout", 1.0),
        ("dropout", -0.1), ("steering_factors", ()), ("steering_factors", (float("inf"),)), ("steering_factors", "x"),
        ("directions", ()), ("directions", ("up",)), ("directions", "up"), ("seed", -1), ("seed", 2**63),
    ],
)  # fmt: skip
def test_a_trainer_setting_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} = .* is out of range: give "):
        TrainConfig(**{name: value})


def test_one_value_is_a_list_of_one() -> None:
    config = TrainConfig(steering_factors=2.0, directions="sub")  # type: ignore[arg-type]
    assert (config.steering_factors, config.directions) == ((2.0,), ("sub",))
