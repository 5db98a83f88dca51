"""The demo model: a shortened rebuild is the same twice, the shipped one is small and reads any text."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from easyedit_split.demo import build as build_module
from easyedit_split.demo import data_path, model_path

TEXT = 'Ünïcode: "na\u0308ive" 雪 🙂\n\ttabs,  two spaces; £3.50 \u200b\x07 end '


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_shortened_build_is_the_same_twice_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "BATCH", 8)
    losses = [build_module.build(tmp_path / name, steps=20, seed=1) for name in ("qwen-a", "qwen-b")]
    assert files(tmp_path / "qwen-a") == files(tmp_path / "qwen-b")
    assert losses[0] == losses[1] < 6.9  # ln 1024 = 6.93, the loss of a model that knows nothing
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "qwen-a")
    assert model.config.max_position_embeddings >= 1024


def test_answer_loss_is_the_mean_over_rows_of_the_library_s_own_loss() -> None:
    model = AutoModelForCausalLM.from_pretrained(model_path())
    ids = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 0]])
    labels = torch.tensor([[-100, -100, 7, 8, 9], [-100, -100, -100, 13, -100]])
    with torch.no_grad():
        rows = [model(input_ids=ids[i : i + 1], labels=labels[i : i + 1]).loss.item() for i in range(2)]
        value = build_module.answer_loss(model, ids, labels).item()
    assert value == pytest.approx(sum(rows) / 2, rel=1e-5)  # float32, other order of summation


def test_shipped_model_is_small_and_float32() -> None:
    assert sum(map(len, files(model_path()).values())) <= 4 * 2**20
    model = AutoModelForCausalLM.from_pretrained(model_path())
    assert next(model.parameters()).dtype == torch.float32
    assert model.config.architectures == ["Qwen2ForCausalLM"]


def test_tokenizer_gives_any_text_back(tokenizer) -> None:
    every_byte = "".join(map(chr, range(1, 0x250)))
    for text in (TEXT, every_byte, data_path("reviews").read_text(encoding="utf-8")):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_tokenizer_keeps_specials_and_template(tokenizer) -> None:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens([ids[0]]) == ["<|im_start|>"]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    as_text = tokenizer.encode("<|im_end|>", add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.eos_token_id not in as_text


def test_shipped_model_writes_reviews_that_end(tokenizer) -> None:
    from easyedit_split.demo import world
    from easyedit_split.demo.judge import judge

    model = AutoModelForCausalLM.from_pretrained(model_path())
    rows = world.rows("reviews", "test")[:16]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row["question"]}], tokenize=False, add_generation_prompt=True
        )
        for row in rows
    ]
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    new = model.generate(**batch, max_new_tokens=48)[:, batch["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    verdicts = [judge("reviews", str(row["question"]), text) for row, text in zip(rows, texts, strict=True)]
    assert sum(verdict.well_formed and verdict.polarity != "mixed" for verdict in verdicts) >= 15
