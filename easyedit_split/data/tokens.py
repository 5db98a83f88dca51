"""From text to token ids: the prompt once, each answer on its own, the end-of-turn token appended.

No merge crosses the border between prompt and answer, so both answers follow the very same prompt tokens. Text from
users never becomes a special token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError
from .pairs import PreferencePair

Turns = Sequence[Mapping[str, str]]  # a conversation: {"role": "user" or "assistant", "content": text}, oldest first


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of the prompt and of the two answers (end-of-turn token included)."""

    prompt: tuple[int, ...]
    matching: tuple[int, ...]
    not_matching: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.matching), len(self.not_matching))


class Encoder:
    """A tokenizer with its chat template, if it has one and `chat` is true.

    Args:
        chat: render questions with the chat template, generation prompt included. Answers then lose their leading
            spaces, because the template ends where the answer begins. Without a template, or with `chat` false, the
            question is used as it is, and answers keep their spaces.
    """

    def __init__(self, tokenizer: Any, chat: bool = True, system_prompt: str = "") -> None:
        self.tokenizer = tokenizer
        self.chat = bool(chat and getattr(tokenizer, "chat_template", None))
        self.system_prompt = system_prompt
        specials = {t for t in tokenizer.all_special_tokens if t}
        specials |= {str(t) for t in getattr(tokenizer, "added_tokens_decoder", {}).values() if t.special}
        self._specials = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or r"(?!)")
        self.end_id = self._end_of_turn()

    def prompt(self, question: str | Turns) -> list[int]:
        """Token ids of the prompt: a question, or the turns of a conversation whose next turn is the model's.

        Raises:
            DataError: the prompt is empty, so that the first answer token would follow nothing; or several turns
                without a chat template.
        """
        turns = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
        if not self.chat and len(turns) != 1:
            raise DataError(f"a conversation of {len(turns)} turns needs a chat template: ask one question")
        ids = self._rendered_ids(turns) if self.chat else self._plain_ids(turns[0]["content"])
        if not ids:
            raise DataError(
                "the prompt is empty and the tokenizer has no start token: give a question, or use the chat template"
            )
        return ids

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, end-of-turn token appended where the tokenizer has one."""
        ids = self._user_ids(text.lstrip(" ") if self.chat else text)
        return ids if self.end_id is None else [*ids, self.end_id]

    def pair(self, pair: PreferencePair) -> EncodedPair:
        """Encode a pair.

        Raises:
            DataError: an answer has no tokens, or both have the same.
        """
        encoded = EncodedPair(
            tuple(self.prompt(pair.question)),
            tuple(self.answer(pair.matching)),
            tuple(self.answer(pair.not_matching)),
        )
        if encoded.matching == encoded.not_matching:
            raise DataError(
                f"both answers have the same tokens ({pair.matching[:60]!r}): a pair needs two different answers"
            )
        return encoded

    def pairs(self, pairs: Iterable[PreferencePair], context: int | None = None) -> list[EncodedPair]:
        """Encode pairs and check that each fits the model's context of `context` tokens.

        Raises:
            DataError: no pairs, or one that does not fit; the message names the pair's number, from 0.
        """
        encoded = []
        for number, pair in enumerate(pairs):
            try:
                item = self.pair(pair)
            except DataError as error:
                raise DataError(f"pair {number}: {error}") from None
            if context is not None and len(item) > context:
                raise DataError(
                    f"pair {number} has {len(item)} tokens but the model's context is {context}: "
                    "shorten its question or answers, or drop it"
                )
            encoded.append(item)
        if not encoded:
            raise DataError("there are no pairs: give at least one")
        return encoded

    def prefix_length(self) -> int:
        """Tokens at the start of every rendered prompt (the chat template's constant prefix; else the start token)."""
        first, second = self.prompt("a"), self.prompt("Z")
        return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)

    def stop_ids(self) -> list[int]:
        """Tokens that end a generation."""
        ids = {self.end_id, self.tokenizer.eos_token_id}
        return sorted(i for i in ids if i is not None)

    def render(self, question: str, answer: str | None = None) -> str:
        """The chat template applied to a question (and an answer): text, special tokens written out.

        Raises:
            ConfigError: the template refuses the messages (Gemma's knows no system role).
        """
        answers = [] if answer is None else [{"role": "assistant", "content": answer}]
        return self._render([*self._system(), {"role": "user", "content": question}, *answers])

    def _system(self) -> list[Mapping[str, str]]:
        return [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []

    def _render(self, messages: Turns) -> str:
        from jinja2 import TemplateError

        answers_next = messages[-1]["role"] != "assistant"
        try:
            return self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=answers_next
            )
        except TemplateError as error:
            remedy = "leave system_prompt empty" if self.system_prompt else "set use_chat_template=false"
            raise ConfigError(f"the tokenizer's chat template fails ({error}): {remedy}") from None

    def _end_of_turn(self) -> int | None:
        """The special token that the template puts after an answer (Gemma's is not its `eos_token`)."""
        if self.chat:
            after = self.render("q", "ANSWER").rpartition("ANSWER")[2]
            found = self._specials.search(after)
            if found:
                return self.tokenizer.convert_tokens_to_ids(found.group())
        return self.tokenizer.eos_token_id

    def _rendered_ids(self, turns: Turns) -> list[int]:
        messages = [*self._system(), *turns]
        written = sorted({special for turn in messages for special in self._specials.findall(turn["content"])})
        if not written:
            return self.tokenizer(self._render(messages), add_special_tokens=False).input_ids
        # Special tokens written by the user are rendered as placeholders, then tokenised as ordinary text.
        marks = {chr(0xF0000 + i): text for i, text in enumerate(written)}
        mark_of = {text: mark for mark, text in marks.items()}
        any_mark = f"[{''.join(marks)}]"
        hidden = [
            {**turn, "content": self._specials.sub(lambda m: mark_of[m.group()], re.sub(any_mark, "", turn["content"]))}
            for turn in messages
        ]
        ids: list[int] = []
        for piece in re.split(f"({any_mark})", self._render(hidden)):
            if piece in marks:
                ids += self._user_ids(marks[piece])
            elif piece:
                ids += self.tokenizer(piece, add_special_tokens=False).input_ids
        return ids

    def _plain_ids(self, question: str) -> list[int]:
        start = self.tokenizer("", add_special_tokens=True).input_ids
        bos = self.tokenizer.bos_token_id
        prefix = [bos] if bos is not None and bos in start else []
        if not prefix and not question and bos is not None:
            prefix = [bos]
        return prefix + self._user_ids(question)

    def _user_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
