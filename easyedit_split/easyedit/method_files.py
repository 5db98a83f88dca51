"""Reading one method file strictly: EasyEdit's merged layout and its flat one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..settings.files import SPELLINGS, flatten_sections, hyperparameters, read_yaml

_SECTIONS = {"train": "generate", "apply": "apply"}


def read_method_file(path: str | Path, phase: str, methods: Sequence[str]) -> dict[str, Any] | None:
    """The values a method file gives for `phase` ("train" or "apply"), or None when it is of another's method.

    In a merged file the phase's section wins over the shared keys.

    Raises:
        ConfigError: the file is not yaml, has an unknown key (the nearest known one is named), or a wrong value.
    """
    content = read_yaml(path)
    if content.get("alg_name") not in methods:
        return None
    for section in _SECTIONS.values():
        if not isinstance(content.get(section) or {}, dict):
            raise ConfigError(f"{path}: the section {section!r} is {content[section]!r}; give it 'key: value' lines.")
    given = flatten_sections(content, _SECTIONS[phase])
    checked = hyperparameters(given, str(path))
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = SPELLINGS.get(key, key)
        value = getattr(checked, name, value)
        values[name] = list(value) if isinstance(value, tuple) else value
    return values
