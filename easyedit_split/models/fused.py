"""Modules that hold several maps at once, and how their output rows are shared out, by each family's own rule.

Every rule takes the row numbers `(d_out,)` of the module and the model's config, and gives the rows of each map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Fused:
    """Several maps in one module: which components, and how their rows `(d_out,)` are shared out."""

    components: tuple[str, ...]
    rows: Callable[[Tensor, Any], tuple[Tensor, ...]]


def equal_parts(count: int) -> Callable[[Tensor, Any], tuple[Tensor, ...]]:
    return lambda rows, config: rows.chunk(count)


def grouped_heads(rows: Tensor, config: Any) -> tuple[Tensor, ...]:
    """Query heads first, then the fewer heads of keys and of values."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys = config.num_key_value_heads * width
    return rows.split([config.num_attention_heads * width, keys, keys])


def interleaved_heads(rows: Tensor, config: Any) -> tuple[Tensor, ...]:
    """`(heads, [q, k, v], head width)`."""
    return tuple(rows.view(config.num_attention_heads, 3, -1)[:, part].flatten() for part in range(3))


def falcon_heads(rows: Tensor, config: Any) -> tuple[Tensor, ...]:
    """`(groups, [queries of the group, k, v], head width)`; the first Falcons have one group, or one a head."""
    groups = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else None
    width = config.hidden_size // config.num_attention_heads
    parts = rows.view(groups or config.num_attention_heads, -1, width)
    return parts[:, :-2].flatten(), parts[:, -2].flatten(), parts[:, -1].flatten()


def codegen_heads(rows: Tensor, config: Any) -> tuple[Tensor, ...]:
    """`(four slices of the heads, [q, v, k], width)`."""
    query, value, key = rows.view(4, 3, -1).unbind(1)
    return query.flatten(), key.flatten(), value.flatten()


def one_key_head(rows: Tensor, config: Any) -> tuple[Tensor, ...]:
    """Query heads, then one head of keys and one of values; without `multi_query`, `(heads, [q, k, v], head width)`."""
    if not config.multi_query:
        return interleaved_heads(rows, config)
    width = config.hidden_size // config.num_attention_heads
    return rows.split([config.hidden_size, width, width])
