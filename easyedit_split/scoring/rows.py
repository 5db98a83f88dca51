"""How a batch of pairs becomes rows of tokens, so that each token is computed once.

Packed: one row a pair, `prompt | first answer | second answer`. Positions restart at each answer and a mask hides the
answers from each other, so that both see the very same prompt. Separate: two rows a pair. Both give the same losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..changes.positions import Positions
from ..data.tokens import EncodedPair

_PAD, _PROMPT = -1, 0


@dataclass(frozen=True)
class Batch:
    """Rows of tokens and where in them the answers are predicted.

    Attributes:
        tokens, position_ids: `(R, T)`, right-padded.
        segments: `(R, T)`: 0 prompt, 1 and 2 the answers, -1 padding.
        rows, cols, targets: `(K,)`: logits at `(rows, cols)` predict `targets`.
        owner: `(K,)`: 2 * pair + 0 (matching) or 1 (not matching).
        prompt_lengths: `(R,)`.
    """

    tokens: Tensor
    position_ids: Tensor
    segments: Tensor
    rows: Tensor
    cols: Tensor
    targets: Tensor
    owner: Tensor
    prompt_lengths: Tensor
    n_pairs: int

    @property
    def rows_per_pair(self) -> int:
        return len(self.tokens) // self.n_pairs

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)

    def steered(self, positions: Positions) -> Tensor | None:
        """`(R, T)` bool: positions the rule steers; None for all of them (padding is never read here)."""
        if positions.rule == "all":
            return None
        return positions.steers(self.position_ids, self.prompt_lengths[:, None]) & (self.segments != _PAD)

    def attention_mask(self, config: Any, dtype: torch.dtype) -> Any:
        """The mask a transformers decoder takes: None, a `(R, 1, T, T)` additive tensor, or one by layer type."""
        if self.rows_per_pair == 2:
            return None
        query, key = self.segments[:, :, None], self.segments[:, None, :]
        distance = self.position_ids[:, :, None] - self.position_ids[:, None, :]
        visible = (distance >= 0) & (key != _PAD) & ((key == _PROMPT) | (key == query))
        visible |= torch.eye(self.tokens.shape[1], dtype=torch.bool, device=self.tokens.device)
        full, kinds = _additive(visible, dtype), set(getattr(config, "layer_types", None) or ())
        window: Any = getattr(config, "sliding_window", None)
        narrow = {}
        if "sliding_attention" in kinds:
            narrow["sliding_attention"] = _additive(visible & (distance < window), dtype)
        if "chunked_attention" in kinds:
            places = self.position_ids // config.attention_chunk_size
            narrow["chunked_attention"] = _additive(visible & (places[:, :, None] == places[:, None, :]), dtype)
        if narrow:
            return {"full_attention": full, **narrow}
        return full if window is None or kinds else _additive(visible & (distance < window), dtype)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def lay_out(pairs: Sequence[EncodedPair], packed: bool = True, pad_id: int = 0) -> Batch:
    """Arrange pairs in rows. The last token of an answer is predicted but needs no input position."""
    rows: list[tuple[list[int], list[int], list[int]]] = []
    wanted: list[tuple[int, int, int, int]] = []
    for number, pair in enumerate(pairs):
        prompt = len(pair.prompt)
        if packed:
            rows.append(_row(pair.prompt, pair.matching, pair.not_matching))
            starts = (prompt, prompt + len(pair.matching) - 1)
        else:
            rows += [_row(pair.prompt, pair.matching), _row(pair.prompt, pair.not_matching)]
            starts = (prompt, prompt)
        for which, (answer, start) in enumerate(zip((pair.matching, pair.not_matching), starts, strict=True)):
            row = len(rows) - 1 if packed else len(rows) - 2 + which
            for i, token in enumerate(answer):
                wanted.append((row, prompt - 1 if i == 0 else start + i - 1, token, 2 * number + which))
    width = max(len(tokens) for tokens, _, _ in rows)
    index = torch.tensor(wanted).T
    lengths = [len(p.prompt) for p in pairs for _ in range(1 if packed else 2)]
    return Batch(
        tokens=_padded([r[0] for r in rows], width, pad_id),
        position_ids=_padded([r[1] for r in rows], width, 0),
        segments=_padded([r[2] for r in rows], width, _PAD),
        rows=index[0],
        cols=index[1],
        targets=index[2],
        owner=index[3],
        prompt_lengths=torch.tensor(lengths),
        n_pairs=len(pairs),
    )


def row_length(pair: EncodedPair, packed: bool = True) -> int:
    """Input positions of a pair's longest row."""
    if packed:
        return len(pair.prompt) + len(pair.matching) + len(pair.not_matching) - 2
    return len(pair) - 1


def _row(prompt: tuple[int, ...], *answers: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
    tokens, positions, segments = list(prompt), list(range(len(prompt))), [_PROMPT] * len(prompt)
    for segment, answer in enumerate(answers, 1):
        tokens += answer[:-1]
        positions += range(len(prompt), len(prompt) + len(answer) - 1)
        segments += [segment] * (len(answer) - 1)
    return tokens, positions, segments


def _padded(rows: list[list[int]], width: int, value: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
