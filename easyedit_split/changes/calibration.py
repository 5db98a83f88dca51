"""The strength that was found for a change, kept with it: which, how sure, and what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ConfigError

Range = tuple[float, float]
RANGES = ("swept", "interval", "band", "texts")


@dataclass(frozen=True)
class Calibration:
    """A strength for one change on one model, as an analysis of a sweep found it.

    Attributes:
        m1, m2: strength of `dW` and of `db` (Eq. 4).
        budget: nats of utility that the strength may cost, from m = 0 or from the highest utility on the way.
        swept: lowest and highest strength that was measured.
        interval: 95% interval of the strength. band: the strengths around it that were measured to cost no
            more than the budget, lowest and highest. texts: those at which the texts held. None where not known.
        reliable: whether the strength may be used unseen; `reason`: what was found about it, in sentences.
        pairs, pairs_sha256: number and hash (`data.pairs.pairs_hash`) of the pairs. model: fingerprint of the model
            (`models.identity.model_fingerprint`). Empty, or 0, where the sweep does not say.
        reduction: of the losses, `"sum"` or `"mean"`. date: of the analysis, `YYYY-MM-DD`.

    Raises:
        ConfigError: a number that is not finite, or a value of the wrong kind.
    """

    m1: float
    m2: float
    budget: float
    swept: Range
    reliable: bool
    reason: str
    reduction: str
    date: str
    interval: Range | None = None
    band: Range | None = None
    texts: Range | None = None
    pairs: int = 0
    pairs_sha256: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        for name in ("m1", "m2", "budget"):
            _check(name, getattr(self, name))
        for name in RANGES:
            value = getattr(self, name)
            if value is None and name != "swept":
                continue
            if not isinstance(value, tuple) or len(value) != 2:
                raise ConfigError(f"{name} of a calibration is {value!r}: give the lowest and the highest strength")
            for number in value:
                _check(name, number)
        for name, kind in (("reliable", bool), ("pairs", int), *((n, str) for n in _TEXTS)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} of a calibration is {getattr(self, name)!r}: give a {kind.__name__}")

    @property
    def m(self) -> float:
        """The one strength of both terms.

        Raises:
            ConfigError: `dW` and `db` have different ones.
        """
        if self.m1 != self.m2:
            raise ConfigError(f"the change keeps two strengths ({self._strength}), and here is place for one: give m")
        return self.m1

    def __str__(self) -> str:
        within = "" if self.interval is None else f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"
        pairs = f"{self.pairs} pairs, " if self.pairs else ""
        texts = "" if self.texts is None else f"; texts hold from m = {self.texts[0]:g} to {self.texts[1]:g}"
        return (
            f"{self._strength}{within}, found for at most {self.budget:g} {'nat' if self.budget == 1 else 'nats'} of "
            f"utility ({pairs}{self.reduction}, {self.date}){texts}"
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Any) -> Calibration:
        """What `as_json` gave, also after a way through JSON; keys of later versions are passed over.

        Raises:
            ConfigError, TypeError: it is broken.
        """
        if not isinstance(kept, Mapping):
            raise ConfigError(f"its calibration is a {type(kept).__name__}")
        known = {f.name: kept[f.name] for f in fields(cls) if f.name in kept}
        ranges = {k: tuple(known[k]) for k in RANGES if isinstance(known.get(k), list)}
        return cls(**{**known, **ranges})

    @property
    def _strength(self) -> str:
        return f"m = {self.m1:.4g}" if self.m1 == self.m2 else f"m1 = {self.m1:.4g}, m2 = {self.m2:.4g}"


_TEXTS = ("reason", "reduction", "date", "pairs_sha256", "model")


def _check(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} of a calibration is {value!r}: give a finite number")
