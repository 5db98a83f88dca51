"""The dial: how strongly a change acts (the m of Eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError

Value = float | Tensor
Dial = Value | dict[int, Value]


class Strength:
    """`m1` scales `dW`, `m2` scales `db`; each a float, or one value for each row of the batch, or a mapping that gives
    one of these for each layer of a change of several."""

    m1: Dial
    m2: Dial

    def __init__(self, m: Any = None, *, m1: Any = None, m2: Any = None) -> None:
        if m is None and m1 is None and m2 is None:
            raise ConfigError("no strength given: pass m, or m1 and m2")
        if m is not None and not (m1 is None and m2 is None):
            raise ConfigError("both m and m1 or m2 given: m sets the two at once, so pass one or the other")
        self.m1 = _checked(m if m is not None else m1, "m1")
        self.m2 = _checked(m if m is not None else m2, "m2")

    def at(self, layer: int) -> tuple[Value, Value]:
        """`m1` and `m2` of one layer."""
        first, second = (v[layer] if isinstance(v, dict) else v for v in (self.m1, self.m2))
        return first, second

    def check_layers(self, layers: Iterable[int]) -> None:
        """Raise `ConfigError` where a mapping's layers are not exactly these."""
        known = set(layers)
        for value in (self.m1, self.m2):
            if isinstance(value, dict) and set(value) != known:
                raise ConfigError(
                    f"strengths for the layers {_listed(value)}, but the change has {_listed(known)}: give one for each"
                )

    def repeated(self, times: int) -> Strength:
        """Each value of a `(B,)` strength `times` times in a row."""
        m1, m2 = (
            _each(value, lambda v: v if isinstance(v, float) else v.repeat_interleave(times))
            for value in (self.m1, self.m2)
        )
        return Strength(m1=m1, m2=m2)


def _each(value: Dial, change: Callable[[Value], Value]) -> Dial:
    return {layer: change(v) for layer, v in value.items()} if isinstance(value, dict) else change(value)


def _listed(layers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(layers))) or "none"


def _checked(value: Any, name: str) -> Dial:
    if not isinstance(value, Mapping):
        return _checked_value(value, name)
    wrong = next((k for k in value if isinstance(k, bool) or not isinstance(k, int)), None)
    if wrong is not None:
        raise ConfigError(f"strength {name} has the key {wrong!r}: give a strength a layer, as in {{14: 2.0, 15: 1.0}}")
    return {layer: _checked_value(v, f"{name} of layer {layer}") for layer, v in value.items()}


def _checked_value(value: Any, name: str) -> Value:
    if value is None:
        return 0.0
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise ConfigError(f"strength {name} = {value} is not finite: give a finite number")
        return float(value)
    try:
        rows = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"strength {name} = {value!r} is no number: give one, or one a row of the batch") from None
    if rows.ndim == 0:
        return _checked_value(float(rows), name)
    if rows.ndim != 1:
        raise ConfigError(
            f"strength {name} has shape {tuple(rows.shape)}: give a number, or one a row of the batch (B,)"
        )
    if not bool(torch.isfinite(rows).all()):
        raise ConfigError(f"strength {name} holds values that are not finite: give finite numbers")
    return rows
