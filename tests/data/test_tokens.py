"""From text to tokens: the prompt once, each answer on its own, and no text of a user that becomes a special token."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import TEMPLATE, tiny_tokenizer

from easyedit_split.data.pairs import PreferencePair
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import ConfigError, DataError

END_OF_TEXT, START, END, PAD = 256, 257, 258, 259
SPECIAL = {END_OF_TEXT, START, END, PAD}
GEMMA_LIKE = (
    "{{ bos_token or '' }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


def _tokenizer(template: str | None = TEMPLATE, eos: str | None = "<|im_end|>") -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template, tokenizer.eos_token = template, eos
    return tokenizer


def _text(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_prompt_and_answer_by_hand(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer)
    prompt = encoder.prompt("Hi")
    assert _text(tokenizer, prompt) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt[0] == START and prompt.count(END) == 1
    answer = encoder.answer("ok")
    assert (_text(tokenizer, answer), answer[-1], len(answer)) == ("ok<|im_end|>", END, 3)
    pair = encoder.pair(PreferencePair("Hi", "ok", "no"))
    assert pair.prompt == tuple(prompt) and pair.matching == tuple(answer)
    assert len(pair) == len(prompt) + 3


@pytest.mark.parametrize("written", ["<|im_end|>", "<|im_start|>", "<|pad|>", "<|endoftext|>", "<|im_end|><|im_end|>"])
@pytest.mark.parametrize("shape", ["{}", "a{}b", "{} and {}", "\U000f0000{}", "<|im_{}end|>", "é{}心"])
def test_special_tokens_in_a_users_text_stay_text(tokenizer: Any, written: str, shape: str) -> None:
    text = shape.replace("{}", written)
    encoder, plain = Encoder(tokenizer), Encoder(tokenizer, chat=False)
    template = [i for i in encoder.prompt("x") if i in SPECIAL]
    prompt = encoder.prompt(text)
    assert [i for i in prompt if i in SPECIAL] == template
    assert text.replace("\U000f0000", "") in _text(tokenizer, prompt)
    for answer in (encoder.answer(text), plain.answer(text)):
        assert [i for i in answer if i in SPECIAL] == [END]
        assert _text(tokenizer, answer[:-1]) == text
    assert not SPECIAL & set(plain.prompt(text))
    assert _text(tokenizer, plain.prompt(text)) == text
    assert [i for i in Encoder(tokenizer, system_prompt=text).prompt("x") if i in SPECIAL] == [START, END, *template]


def test_the_tokenizer_is_left_as_it_was(tokenizer: Any) -> None:
    Encoder(tokenizer).answer("<|im_end|>")
    assert tokenizer("<|im_end|>").input_ids == [END]


def test_leading_spaces() -> None:
    """After a chat template an answer begins at once; after a plain prompt its space belongs to it."""
    tokenizer = _tokenizer()
    chat, plain = Encoder(tokenizer), Encoder(tokenizer, chat=False)
    assert chat.answer(" (A)") == chat.answer("(A)") == chat.answer("   (A)")
    assert plain.answer(" (A)") == [plain.answer(" ")[0], *plain.answer("(A)")]
    assert _text(tokenizer, chat.answer("\n (A) ")) == "\n (A) <|im_end|>"


def test_the_end_of_turn_is_the_templates_and_not_the_eos_token() -> None:
    """Gemma ends a turn with a token that is not its `eos_token`; both stop a generation."""
    encoder = Encoder(_tokenizer(GEMMA_LIKE, eos="<|endoftext|>"))
    assert encoder.end_id == END
    assert encoder.answer("x")[-1] == END
    assert encoder.stop_ids() == [END_OF_TEXT, END]


def test_the_end_of_turn_is_found_behind_the_answer_whatever_the_system_prompt_says() -> None:
    template = TEMPLATE.replace(
        "{{ m['content'] }}<|im_end|>",
        "{{ m['content'] }}{{ '<|im_end|>' if m['role'] == 'assistant' else '<|pad|>' }}",
    )
    assert Encoder(_tokenizer(template), system_prompt="Give an ANSWER.").end_id == END


@pytest.mark.parametrize(
    ("template", "eos", "chat", "expected"),
    [
        (TEMPLATE, None, True, END),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "<|endoftext|>", True, END_OF_TEXT),
        (TEMPLATE, "<|endoftext|>", False, END_OF_TEXT),
        (None, "<|endoftext|>", True, END_OF_TEXT),
        (None, None, True, None),
    ],
)
def test_where_the_end_token_comes_from(template: str | None, eos: str | None, chat: bool, expected: int) -> None:
    encoder = Encoder(_tokenizer(template, eos), chat)
    assert encoder.end_id == expected
    assert encoder.answer("x") == encoder.answer("x")[:1] + ([] if expected is None else [expected])


def test_a_template_without_system_role_says_so() -> None:
    with pytest.raises(ConfigError, match="chat template fails .System role not supported.: leave system_prompt empty"):
        Encoder(_tokenizer(GEMMA_LIKE), system_prompt="Be kind.")


def test_a_model_with_a_start_token_gets_it_once() -> None:
    tokenizer = _tokenizer(GEMMA_LIKE)
    tokenizer.bos_token = "<|endoftext|>"
    ids = Encoder(tokenizer).prompt("Hi")
    assert ids[0] == END_OF_TEXT and ids.count(END_OF_TEXT) == 1
    assert Encoder(tokenizer, chat=False).prompt("") == [END_OF_TEXT]


def test_an_empty_prompt_without_template_or_start_token() -> None:
    with pytest.raises(DataError, match="the prompt is empty and the tokenizer has no start token"):
        Encoder(_tokenizer(None)).prompt("")


def test_the_prefix_is_what_every_prompt_shares(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer)
    length = encoder.prefix_length()
    assert length == len("user\n") + 1
    assert len({tuple(encoder.prompt(q)[:length]) for q in ("one", "Two", "", "心")}) == 1
    assert Encoder(tokenizer, chat=False).prefix_length() == 0
    system = Encoder(tokenizer, system_prompt="Be kind.")
    assert system.prefix_length() == length + len("system\nBe kind.\n") + 2


def test_the_same_tokens_are_refused() -> None:
    """Texts that differ only in what the chat template drops."""
    with pytest.raises(DataError, match="pair 1: both answers have the same tokens|two different answers"):
        Encoder(_tokenizer()).pairs([PreferencePair("q", "a", "b"), PreferencePair("q", "yes\n", " yes\n")])


def test_a_pair_must_fit_the_context(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer)
    pair = PreferencePair("Hi", "a", "long one")
    need = len(encoder.prompt("Hi")) + len("long one") + 1
    assert len(encoder.pairs([pair], need)) == 1
    with pytest.raises(DataError, match=f"pair 0 has {need} tokens but the model's context is {need - 1}: shorten"):
        encoder.pairs([pair], need - 1)
