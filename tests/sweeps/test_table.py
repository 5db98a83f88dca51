"""Sweeps: each cell is one pair at one strength, however the cells are batched; and the file they are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS, noisy
from tiny import MAIN, tiny_model

from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import ArtifactError, ConfigError
from easyedit_split.scoring.scorer import sequence_nll
from easyedit_split.sweeps.run import sweep
from easyedit_split.sweeps.table import SweepTable

FACTORS = [3.0, -2.0, 0.0, 0.5]


def _by_hand(model: Any, tokenizer: Any, artifact: Any, reduction: str) -> np.ndarray:
    pairs = Encoder(tokenizer).pairs(TEXT_PAIRS)
    found = np.empty((2, len(FACTORS), len(pairs)))
    for k, m in enumerate(FACTORS):
        with artifact.attach(model, m):
            for i, pair in enumerate(pairs):
                for side, answer in enumerate((pair.matching, pair.not_matching)):
                    found[side, k, i] = sequence_nll(model, pair.prompt, answer, reduction)
    return found


@pytest.mark.parametrize("kind", MAIN)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_every_cell_is_its_own_run(lend: Any, tokenizer: Any, kind: str, reduction: str) -> None:
    model = lend(kind)
    artifact = noisy(model, layer=2)
    table = sweep(model, tokenizer, TEXT_PAIRS, artifact, FACTORS, reduction)
    expected = _by_hand(model, tokenizer, artifact, reduction)
    assert table.factors.tolist() == FACTORS
    np.testing.assert_allclose(table.loss_pos, expected[0], rtol=1e-5)
    np.testing.assert_allclose(table.loss_neg, expected[1], rtol=1e-5)
    np.testing.assert_allclose(table.preference(), expected[1] - expected[0], rtol=1e-3, atol=1e-3)


def test_out_of_memory_halves_the_batch(lend: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from easyedit_split.scoring.scorer import PairScorer

    model = lend("qwen2")
    artifact = noisy(model)
    expected = sweep(model, tokenizer, TEXT_PAIRS, artifact, FACTORS, "sum")
    real, sizes = PairScorer.losses, []

    def small(self: Any, indices: torch.Tensor) -> Any:
        sizes.append(len(indices))
        if len(indices) > 2:
            raise torch.OutOfMemoryError("too much")
        return real(self, indices)

    monkeypatch.setattr(PairScorer, "losses", small)
    found = sweep(model, tokenizer, TEXT_PAIRS, artifact, FACTORS, "sum")
    assert max(sizes) > 2
    np.testing.assert_allclose(found.loss_pos, expected.loss_pos, rtol=1e-5)
    np.testing.assert_allclose(found.loss_neg, expected.loss_neg, rtol=1e-5)


def test_a_model_in_train_mode_is_measured_without_dropout(tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    artifact = noisy(model)
    expected = sweep(model, tokenizer, TEXT_PAIRS, artifact, [1.0], "sum")
    found = sweep(model.train(), tokenizer, TEXT_PAIRS, artifact, [1.0], "sum")
    assert np.array_equal(found.loss_pos, expected.loss_pos)
    assert all(m.training for m in model.modules())


def test_reductions_are_each_others_inverse_and_kept(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = lend("qwen2")
    table = sweep(model, tokenizer, TEXT_PAIRS, noisy(model), FACTORS, "sum")
    mean = table.reduced("mean")
    np.testing.assert_allclose(mean.loss_pos * table.tokens_pos, table.loss_pos)
    np.testing.assert_allclose(mean.reduced("sum").loss_neg, table.loss_neg)
    back = SweepTable.load(mean.save(tmp_path / "sub" / "t.parquet"))
    assert (back.reduction, back.header) == ("mean", mean.header)
    for name in ("factors", "loss_pos", "loss_neg", "tokens_pos", "tokens_neg"):
        assert np.array_equal(getattr(back, name), getattr(mean, name))
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["t.parquet"]


@pytest.mark.parametrize(
    ("factors", "reduction", "message"),
    [
        ([], "sum", "factors has shape"),
        (2.0, "sum", "factors has shape"),
        ([1.0, float("nan")], "sum", "factors holds nan"),
        ([1e39], "sum", "factors holds 1e\\+39, which is no finite number in float32"),
        (["a"], "sum", "is no list of numbers"),
        ([1.0], "total", "reduction 'total' is unknown"),
    ],
)
def test_what_is_refused(lend: Any, tokenizer: Any, factors: Any, reduction: str, message: str) -> None:
    model = lend("qwen2")
    with pytest.raises(ConfigError, match=message):
        sweep(model, tokenizer, TEXT_PAIRS, noisy(model), factors, reduction)


def test_files_that_are_no_sweep(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(ArtifactError, match="does not exist"):
        SweepTable.load(tmp_path / "none.parquet")
    other = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), other)
    model = lend("qwen2")
    whole = sweep(model, tokenizer, TEXT_PAIRS, noisy(model), [0.0], "sum").save(tmp_path / "t.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(whole.read_bytes()[:-20])
    for path in (other, broken):
        with pytest.raises(ArtifactError, match="is not a sweep that can be read"):
            SweepTable.load(path)


def test_without_a_change_the_model_is_scored_as_it_is(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    plain = sweep(model, tokenizer, TEXT_PAIRS, None, [0.0], "sum")
    silent = sweep(model, tokenizer, TEXT_PAIRS, noisy(model, layer=2), [0.0], "sum")
    np.testing.assert_allclose(plain.loss_pos, silent.loss_pos, rtol=1e-6)
    np.testing.assert_allclose(plain.loss_neg, silent.loss_neg, rtol=1e-6)
    assert plain.header["artifact"] is None
    with pytest.raises(ConfigError, match="factors holds 2, but there is no change"):
        sweep(model, tokenizer, TEXT_PAIRS, None, [0.0, 2.0], "sum")
