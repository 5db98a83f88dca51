"""Texts of a sweep: those of `generate` at every strength, kept beside the sweep they belong to and no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laws import TEXT_PAIRS, noisy

from easyedit_split import SweepTable, generate, sweep
from easyedit_split.analysis.texts import SweptTexts, TextMeasures
from easyedit_split.cli import main
from easyedit_split.errors import ArtifactError, ConfigError
from easyedit_split.texts import drop_others, load_texts, save_texts, texts_file, write_texts

FACTORS = [2.0, -1.0, 0.0, 8.0]


@pytest.fixture
def swept(lend: Any, tokenizer: Any) -> tuple[Any, Any, SweepTable]:
    model = lend("qwen2")
    artifact = noisy(model, "lora", layer=1, scale=3.0)
    return model, artifact, sweep(model, tokenizer, TEXT_PAIRS, artifact, FACTORS, "sum", chat=False)


def test_texts_are_those_of_generate_at_each_strength(swept: Any, tokenizer: Any, monkeypatch: Any) -> None:
    model, artifact, table = swept
    monkeypatch.setattr("easyedit_split.texts.ROWS", 3)  # batches that end in the middle of a question
    texts = write_texts(model, tokenizer, TEXT_PAIRS, artifact, table, 2, max_new_tokens=6)
    assert texts.m.tolist() == sorted(FACTORS) and len(texts.questions) == 2
    for m, row in zip(texts.m, texts.answers, strict=True):
        with artifact.attach(model, m):
            assert list(row) == [
                generate(model, tokenizer, [p.question], max_new_tokens=6, chat=False)[0] for p in TEXT_PAIRS[:2]
            ]
    assert len(set(texts.answers)) > 1, "the strength changes nothing here"
    assert texts.at(8.0) == 3 and texts.at(7.9) is None


def test_they_are_read_back_with_their_sweep(swept: Any, tokenizer: Any, tmp_path: Path) -> None:
    model, artifact, table = swept
    file = table.save(tmp_path / "sweep.parquet")
    assert load_texts(file, table) is None
    texts = write_texts(model, tokenizer, TEXT_PAIRS, artifact, table, 1, max_new_tokens=2)
    assert save_texts(file, texts, table).name == "texts.json"
    again = load_texts(file, SweepTable.load(file))
    assert again is not None and again.answers == texts.answers and again.questions == texts.questions
    np.testing.assert_array_equal(again.m, texts.m)


def _texts() -> SweptTexts:
    return SweptTexts(np.array(sorted(FACTORS)), ("q",), tuple((f"a{k}",) for k in range(4)), 8)


def test_texts_of_another_sweep_are_refused_and_dropped(swept: Any, tmp_path: Path) -> None:
    table = swept[2]
    file = tmp_path / "sweep.parquet"
    others = {
        "another change": replace(table, header={**table.header, "artifact": {**table.header["artifact"], "id": "x"}}),
        "other settings": replace(table, factors=table.factors + 1),
    }
    save_texts(file, _texts(), table)
    drop_others(file, table)
    assert load_texts(file, table) is not None
    for reason, other in others.items():
        with pytest.raises(ArtifactError, match=f"is of {reason} than sweep.parquet beside it: run sweep again"):
            load_texts(file, other)
    drop_others(file, others["other settings"])
    assert not texts_file(file).exists()


def test_measures_are_kept_and_an_old_file_has_none(swept: Any, tmp_path: Path) -> None:
    table, file = swept[2], tmp_path / "sweep.parquet"
    row = np.array([1.5, np.nan, 2.0, 0.25])
    measures = TextMeasures(row, 3.5, 2.5, row / 10, 0.125, row * 2, np.arange(4.0))
    save_texts(file, replace(_texts(), measures=measures), table)
    again = load_texts(file, table)
    assert again is not None and again.measures is not None
    for name, value in vars(measures).items():
        np.testing.assert_array_equal(getattr(again.measures, name), value)
    save_texts(file, _texts(), table)
    assert "measures" not in json.loads(texts_file(file).read_text())
    old = load_texts(file, table)
    assert old is not None and old.measures is None


@pytest.mark.parametrize(
    "wrong", [{"dose": [1.0]}, {"sampled_perplexity": [1.0] * 4}, {"dose": np.ones((4, 2))}, {"repetition": 1}]
)
def test_measures_that_are_not_one_a_strength_are_refused(swept: Any, tmp_path: Path, wrong: Any) -> None:
    table, file, row = swept[2], tmp_path / "sweep.parquet", np.ones(4)
    measures = TextMeasures(row, 1.0, 1.0, row, 0.0, row, row)
    save_texts(file, replace(_texts(), measures=replace(measures, **wrong)), table)
    with pytest.raises(ArtifactError, match="texts.json is broken .*: run sweep again"):
        load_texts(file, table)


@pytest.mark.parametrize("broken", ["", "[]", '{"sha256": "x"}', "{", "null"])
def test_a_broken_file_is_one_sentence(swept: Any, tmp_path: Path, broken: str) -> None:
    file = tmp_path / "sweep.parquet"
    texts_file(file).write_text(broken)
    with pytest.raises(ArtifactError, match="texts.json is broken .*: run sweep again"):
        load_texts(file, swept[2])


def test_a_changed_word_is_noticed(swept: Any, tmp_path: Path) -> None:
    file = tmp_path / "sweep.parquet"
    path = save_texts(file, _texts(), swept[2])
    held = json.loads(path.read_text())
    held["answers"][0][0] = "another"
    path.write_text(json.dumps(held))
    with pytest.raises(ArtifactError, match="checksum"):
        load_texts(file, swept[2])


def test_every_sweep_has_a_file_of_its_own() -> None:
    names = {s: texts_file(Path(s)).name for s in ("sweep.parquet", "sweep-0a1b2c3d.parquet", "mine.parquet")}
    assert list(names.values()) == ["texts.json", "texts-0a1b2c3d.json", "texts-mine.json"]


def test_the_number_is_bounded(swept: Any, tokenizer: Any) -> None:
    model, artifact, table = swept
    for n in (-1, 21):
        with pytest.raises(ConfigError, match=f"{n} texts a strength: give 0 to 20"):
            write_texts(model, tokenizer, TEXT_PAIRS, artifact, table, n)


def test_sweep_keeps_them_and_the_report_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["model_name_or_path=demo", f"output_dir={tmp_path / 'v'}", "max_num_of_examples=4"]
    assert main(["train", "demo/reviews/split_vector", "train_data=demo:reviews", "n_epochs=1", *common]) == 0
    given = ["sweep", "--artifact", str(tmp_path / "v"), "test_data=demo:reviews", "factors=[-1,0,1,2]", *common]
    assert main([*given, "--texts", "21"]) == 2
    assert "give 0 to 20" in capsys.readouterr().err
    assert main([*given, "--texts", "2", "max_new_tokens=5"]) == 0
    assert "2 texts at each of 4 strengths" in capsys.readouterr().out
    texts = load_texts(tmp_path / "v" / "sweep.parquet", SweepTable.load(tmp_path / "v" / "sweep.parquet"))
    assert texts is not None and texts.m.tolist() == [-1, 0, 1, 2] and texts.max_new_tokens == 5
    assert texts.measures is not None and texts.measures.divergence[1] == pytest.approx(0, abs=1e-5)
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="texts"') == 1 and "No texts are kept" not in page
    assert "Texts of SPLIT vector over m" in page and (tmp_path / "figures" / "texts_v.png").exists()
    assert (tmp_path / "tables" / "texts.csv").read_text().count("\n") == 1 + len(texts.m)
    capsys.readouterr()
    assert main(["fit", str(tmp_path / "v"), "--max-utility-drop", "0.05/token"]) == 0
    said = capsys.readouterr().out
    assert "nats for a whole answer, 0.05 nats a token (an answer has" in said and "Texts hold from m = " in said
    # a sweep of other settings in its place leaves no texts of the one before
    assert main([*given[:-4], "factors=[-1,0,1]", "overwrite=true", *common]) == 0
    assert not (tmp_path / "v" / "texts.json").exists()
    assert main(["report", str(tmp_path)]) == 0
    assert not (tmp_path / "figures" / "texts_v.png").exists() and not (tmp_path / "tables" / "texts.csv").exists()
    page = (tmp_path / "report.html").read_text()
    assert "No texts are kept with these sweeps" in page and "--texts 3" in page and 'class="texts"' not in page
