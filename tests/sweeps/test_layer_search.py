"""The layer search: every layer scored on pairs it was not estimated on, and what it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.cli import main
from easyedit_split.data.pairs import PreferencePair
from easyedit_split.errors import ConfigError, DataError
from easyedit_split.sweeps.layer_search import LayerScore, best_layer, search_layers, write_layers

PAIRS = [PreferencePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(8)]


def test_every_layer_has_a_score_within_its_interval_or_beside_it() -> None:
    model, tokenizer = tiny_model("llama", layers=3), tiny_tokenizer()
    found = search_layers(model, tokenizer, PAIRS, points=15)
    assert [s.layer for s in found] == [0, 1, 2]
    for score in found:
        assert score.gain >= 0 and score.low <= score.high and score.reach > 0
        assert list(score.gains) == sorted(score.gains)  # a larger budget never gains less
        assert score.gains[1] == score.gain  # the budget of 1 nat is one of the four


def test_chosen_layers_only_and_wrong_ones_refused() -> None:
    model, tokenizer = tiny_model("qwen2", layers=2), tiny_tokenizer()
    assert [s.layer for s in search_layers(model, tokenizer, PAIRS, points=15, layers=[1])] == [1]
    with pytest.raises(ConfigError, match="layer 2 .* 0 to 1"):
        search_layers(model, tokenizer, PAIRS, layers=[2])
    with pytest.raises(ConfigError, match="budget"):
        search_layers(model, tokenizer, PAIRS, budget=-1.0)
    with pytest.raises(DataError, match="8"):
        search_layers(model, tokenizer, PAIRS[:5])


def _score(layer: int, gain: float) -> LayerScore:
    return LayerScore(layer, gain, gain - 1, gain + 1, (0.0, gain, gain, gain), 8.0)


def test_best_is_the_highest_and_of_equals_the_first(tmp_path: Path) -> None:
    scores = [_score(0, 1.0), _score(1, 3.0), _score(2, 3.0)]
    assert best_layer(scores).layer == 1
    written = write_layers(scores, 1.0, tmp_path)
    assert [p.suffix for p in written] == [".csv", ".png", ".svg"]
    rows = list(csv.DictReader(written[0].read_text().splitlines()))
    assert [float(r["gain"]) for r in rows] == [1.0, 3.0, 3.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("qwen2", layers=2).save_pretrained(tmp_path / "tiny-qwen2")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny-qwen2")
    rows = [{"question": p.question, "matching": p.matching, "not_matching": p.not_matching} for p in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_layers_command(folder: Path, capsys: Any) -> None:
    named = [f"model_name_or_path={folder / 'tiny-qwen2'}", f"output_dir={folder / 'out'}"]
    assert main(["layers", f"train_data={folder / 'pairs.jsonl'}", *named]) == 0
    assert "best" in capsys.readouterr().out
    assert (folder / "out" / "layers.csv").is_file()


def test_the_command_tries_the_layers_named_there_not_the_files(folder: Path, capsys: Any) -> None:
    (folder / "one.yaml").write_text("alg_name: unified_diffmean\nlayers: [0]\n")
    named = [f"model_name_or_path={folder / 'tiny-qwen2'}", f"output_dir={folder / 'out'}"]
    data = f"train_data={folder / 'pairs.jsonl'}"

    def tried(*more: str) -> list[str]:
        assert main(["layers", str(folder / "one.yaml"), data, *named, *more]) == 0
        return [r["layer"] for r in csv.DictReader((folder / "out" / "layers.csv").read_text().splitlines())]

    assert tried() == ["0", "1"]
    assert tried("layers=[1]", "--points", "15") == ["1"]


def test_evaluate_command_without_a_judge_and_with_one(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from judge_server import Answer, judge_server

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shared = [
        f"model_name_or_path={folder / 'tiny-qwen2'}", f"output_dir={folder / 'out'}", "max_new_tokens=3",
        f"test_data={folder / 'pairs.jsonl'}",
    ]  # fmt: skip
    assert main(["evaluate", *shared]) == 0
    (found,) = json.loads((folder / "out" / "evaluation.json").read_text())
    assert found["m"] == 0 and found["perplexity"] > 1
    assert len((folder / "out" / "generations.jsonl").read_text().splitlines()) == len(PAIRS)
    assert main(["evaluate", "--rubric", "fluency", *shared]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    pytest.importorskip("openai", reason="the judge needs the extra: pip install easyedit-split[judge]")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with judge_server(lambda r, n: Answer("Rating: 1")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert main(["evaluate", "--rubric", "fluency", "--rubric", "instruct", "--rubric", "concept", *shared]) == 0
    (found,) = json.loads((folder / "out" / "evaluation.json").read_text())
    assert (found["fluency"], found["harmonic mean"], found["missing"]) == (1, 1, 0)
    assert "requests" in capsys.readouterr().out
