"""Settings that suit themselves to a model: the share of the depth, and steps of a known size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.cli import main
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import ConfigError
from easyedit_split.models.sites import Site, resolve_site
from easyedit_split.settings.hyperparameters import Hyperparameters
from easyedit_split.training.suited import activation_scales, suited

PAIRS = [PreferencePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(6)]
HP = Hyperparameters(layer_share=0.5, step_share=0.1, steering_factors=(1.0, 2.0, 4.0))


@pytest.mark.parametrize(("depth", "layer"), [(2, 1), (3, 2), (4, 2), (7, 4)])
def test_the_layer_is_a_share_of_the_depth(depth: int, layer: int) -> None:
    found = suited(HP, tiny_model("llama", layers=depth), tiny_tokenizer(), PAIRS)
    assert found.hp.layers == (layer,)
    assert f"0.5 of the model's {depth} blocks" in found.reasons[0]


def answer_states(model: Any, layer: int, component: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Input of the site's map and output of its block at the answer tokens that are inputs: pair by pair, by hand."""
    seen: dict[str, list[torch.Tensor]] = {"in": [], "out": []}
    block = resolve_site(model, Site(layer, "residual")).module
    module = resolve_site(model, Site(layer, component)).module
    hooks = [
        module.register_forward_pre_hook(lambda m, a: seen["in"].append(a[0])),
        block.register_forward_hook(lambda m, a, o: seen["out"].append(o[0] if isinstance(o, tuple) else o)),
    ]
    kept: dict[str, list[torch.Tensor]] = {"in": [], "out": []}
    for pair in Encoder(tiny_tokenizer()).pairs(PAIRS):
        for answer in (pair.matching, pair.not_matching):
            with torch.no_grad():
                model(input_ids=torch.tensor([[*pair.prompt, *answer[:-1]]]))
            for name, states in seen.items():
                kept[name].append(states.pop()[0, len(pair.prompt) :])
    for hook in hooks:
        hook.remove()
    return torch.cat(kept["in"]), torch.cat(kept["out"])


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_scales_are_those_of_the_activations_at_answer_tokens(kind: str) -> None:
    model = tiny_model(kind)
    x, h = answer_states(model, 1, "mlp.down_proj")
    hp = replace(HP, layers=(1,), intervention_components="mlp_mid")
    stream = h.pow(2).mean(-1).sqrt().median().item()
    assert activation_scales(hp, model, tiny_tokenizer(), PAIRS) == pytest.approx((stream, 1.0), rel=1e-4)
    weight = activation_scales(replace(hp, intervention_method="local_weight"), model, tiny_tokenizer(), PAIRS)
    assert weight == pytest.approx((stream, x.abs().sum(-1).median().item()), rel=1e-4)
    lora = activation_scales(replace(hp, intervention_method="lora"), model, tiny_tokenizer(), PAIRS)
    draws = (torch.rand(4000, x.shape[1]) * 2 - 1) / x.shape[1] ** 0.5
    sizes = (x @ draws.T).abs().mean(-1) * 4
    assert lora[1] == pytest.approx(sizes.median().item(), rel=0.05)  # 4,000 draws of A's rows: 1% off, and normality


def test_one_step_moves_the_output_by_the_share_asked_for() -> None:
    """AdamW's first step moves every number by lr: a vector's output by lr, so lr * m is the share of the stream."""
    found = suited(HP, tiny_model("llama"), tiny_tokenizer(), PAIRS)
    stream, _ = activation_scales(found.hp, tiny_model("llama"), tiny_tokenizer(), PAIRS)
    assert found.hp.lr * 2.0 == pytest.approx(0.1 * stream, rel=0.05)  # lr has two digits
    assert found.hp.step_share is None
    doubled = suited(replace(HP, step_share=0.2), tiny_model("llama"), tiny_tokenizer(), PAIRS)
    assert doubled.hp.lr == pytest.approx(2 * found.hp.lr, rel=0.1)


@pytest.mark.parametrize("form", ["vector", "lora"])
def test_layers_trained_together_have_the_smallest_of_their_rates(form: str) -> None:
    model = tiny_model("llama")
    hp = replace(HP, layers=(0, 1, 3), intervention_method=form)
    alone = [suited(replace(hp, layers=(k,)), model, tiny_tokenizer(), PAIRS).hp.lr for k in hp.layers]
    assert len(set(alone)) > 1
    together = suited(replace(hp, joint=True), model, tiny_tokenizer(), PAIRS)
    assert together.hp.lr == min(alone) and "in the layer that bears least" in together.reasons[0]
    assert suited(hp, model, tiny_tokenizer(), PAIRS).hp.lr == alone[0]  # each alone: as before


def test_what_is_named_stays() -> None:
    named = Hyperparameters(layers=(1,), lr=0.3)
    found = suited(named, tiny_model("llama"), tiny_tokenizer(), PAIRS)
    assert (found.hp, found.reasons) == (named, ())


def test_a_layer_of_another_depth_is_said() -> None:
    named = Hyperparameters(layers=(12,), source="hparams/qwen2.5-0.5b-instruct/powerseeking/split_lora.yaml")
    (reason,) = suited(named, tiny_model("llama", layers=15), tiny_tokenizer(), PAIRS).reasons
    assert "for qwen2.5-0.5b-instruct, which has 24 blocks, and this model has 15" in reason
    assert "the same share of the depth is layer 8" in reason


@pytest.mark.parametrize("name", ["layer_share", "step_share"])
@pytest.mark.parametrize("value", [0.0, -0.1, 1.5])
def test_a_share_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = .* is out of range: give a share above 0"):
        Hyperparameters(**{name: value})


def test_one_command_trains_on_a_model_without_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("llama", layers=3).save_pretrained(tmp_path / "mine")
    tiny_tokenizer().save_pretrained(tmp_path / "mine")
    common = [f"model_name_or_path={tmp_path / 'mine'}", "train_data=demo:reviews", "max_num_of_examples=4"]
    assert main(["train", "any/powerseeking/split_lora", *common, f"output_dir={tmp_path / 'out'}"]) == 0
    out = capsys.readouterr().out
    assert "note: layer 2: 0.5 of the model's 3 blocks" in out
    assert "note: lr " in out
    assert (tmp_path / "out" / "layer_2.safetensors").exists()
    assert main(["train", "mine/powerseeking/split_lora", *common, f"output_dir={tmp_path / 'out'}"]) == 2
    assert "'any/powerseeking/split_lora' serves a model without files of its own" in capsys.readouterr().err
