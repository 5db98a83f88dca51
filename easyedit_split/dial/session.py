"""A model with changes attached to it, shared by everybody at the page: each answer has strengths of its own.

Everything that runs the model passes the turnstile, one token or one sweep at a time. The dials are set on entering
and stand at 0 otherwise, so nobody's strength reaches another's text.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..data.pairs import PreferencePair
from ..errors import ConfigError
from ..generation import stream
from .asked import Asked, Row
from .change import DialledChange
from .curves import curves_of_pair
from .turnstile import Turnstile

PAIR_STRENGTHS = 25  # of a pair's own sweep, where the change was not swept


class Session:
    """Use as a context manager: at the end the model is as it was.

    Raises:
        ConfigError: no change, or changes trained with different prompts.
        ArtifactError, SiteError: a change that was made for another model.
    """

    def __init__(self, model: Any, tokenizer: Any, changes: Sequence[DialledChange], source: str) -> None:
        if not changes:
            raise ConfigError("there is no change to turn: give the folder of one")
        self.model, self.tokenizer, self.changes, self.source = model, tokenizer, tuple(changes), source
        chat, self.system_prompt = _shared_prompt(changes)
        self.chat = chat and bool(getattr(tokenizer, "chat_template", None))
        self.answering = 0  # how many answers are being written
        self._turnstile = Turnstile()
        self._handles: list[Any] = []
        try:
            for change in changes:
                self._handles.append(change.artifact.attach(model, 0.0))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Detach every change."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def answers(self, asked: Asked) -> Generator[list[str], None, None]:
        """After each token the texts so far, one a row; each as `generate` gives it alone at the row's strengths.

        Raises:
            ConfigError, DataError: see `generate`.
        """
        steps = stream(
            self.model, self.tokenizer, [row.turns for row in asked.rows],
            max_new_tokens=asked.max_new_tokens, temperature=asked.temperature, seed=asked.seed,
            chat=self.chat, system_prompt=self.system_prompt,
        )  # fmt: skip
        self.answering += 1
        try:
            while True:
                with self._dialled(asked.rows):
                    texts = next(steps, None)
                if texts is None:
                    return
                yield texts
        finally:
            self.answering -= 1

    def score(self, number: int, question: str, matching: str, not_matching: str) -> dict[str, Any]:
        """Preference and utility of one's own pair over the strengths of a change's sweep.

        Raises:
            DataError: the pair cannot be used.
        """
        from ..sweeps.run import sweep

        change = self.changes[number]
        table = change.table
        factors = np.linspace(*change.range, PAIR_STRENGTHS) if table is None else table.factors
        reduction = "sum" if table is None else table.reduction
        pair = PreferencePair(question, matching, not_matching)
        with self._turnstile.turn():
            found = sweep(self.model, self.tokenizer, [pair], change.artifact, factors, reduction)
        return curves_of_pair(found)

    @contextmanager
    def _dialled(self, rows: Sequence[Row]) -> Iterator[None]:
        """In turn, with the rows' strengths; afterwards every dial stands at 0."""
        import torch

        with self._turnstile.turn():
            try:
                for k, handle in enumerate(self._handles):
                    both = [(row.strengths[k].m1, row.strengths[k].m2) for row in rows]
                    if any(map(any, both)):
                        handle.set_strength(**dict(zip(("m1", "m2"), torch.tensor(both).T, strict=True)))
                yield
            finally:
                for handle in self._handles:
                    handle.set_strength(0.0)


def _shared_prompt(changes: Sequence[DialledChange]) -> tuple[bool, str]:
    """Whether questions go through the chat template, and the system prompt: as in training."""
    prompts = {
        (bool(o.get("chat", True)), str(o.get("system_prompt", ""))) for o in (c.artifact.origin for c in changes)
    }
    if len(prompts) > 1:
        raise ConfigError(
            "the changes were trained with different chat templates or system prompts: open them one at a time"
        )
    return prompts.pop()
