"""What a method is called where people read it: its objective and its form, as a sweep's header says them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

OBJECTIVES = {"split": "SPLIT", "sft": "SFT", "reps": "RePS", "diff_mean": "DiffMean"}
FORMS = {"vector": "vector", "lora": "LoRA", "local_weight": "local weight"}
T = TypeVar("T")


def method_name(header: Mapping[str, Any]) -> str | None:
    """As ``SPLIT vector``; None where the header does not say the form and how it was made."""
    about: Any = header.get("artifact")
    form = about.get("form") if isinstance(about, Mapping) else None
    origin = about.get("origin") if isinstance(about, Mapping) else None
    if not isinstance(origin, Mapping) or not isinstance(form, str):
        return None
    objective = origin.get("objective")
    name = objective.get("name") if isinstance(objective, Mapping) else "imported" if "imported" in origin else None
    return f"{OBJECTIVES.get(name, name)} {FORMS.get(form, form)}" if isinstance(name, str) else None


def method_names(headers: Mapping[T, Mapping[str, Any]]) -> dict[T, str]:
    """A name for each: its method's, with what it was called where two are of one method or the method is unknown."""
    named = {key: method_name(header) or str(key) for key, header in headers.items()}
    count = Counter(named.values())
    return {key: name if count[name] == 1 else f"{name} ({key})" for key, name in named.items()}
