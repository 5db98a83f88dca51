"""How a change was made: objective, settings, pairs and versions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.pairs import PreferencePair, pairs_hash
from .change import Change


def origin_of(
    pairs: Sequence[PreferencePair], objective: Mapping[str, Any], chat: bool, system_prompt: str, **more: Any
) -> dict[str, Any]:
    """What an artifact remembers of how it was made; `more` is kept, too."""
    concepts = sorted({p.concept for p in pairs if p.concept})
    return {
        "objective": dict(objective), **more, "pairs": len(pairs), "pairs_sha256": pairs_hash(pairs),
        "concept": concepts[0] if len(concepts) == 1 else None,
        "concept_id": pairs[0].concept_id if pairs else None,
        "chat": chat, "system_prompt": system_prompt, "versions": versions(),
    }  # fmt: skip


def source_of(artifact: Change) -> dict[str, Any]:
    """What a file that was made from a change says of it."""
    return {"id": artifact.id, "form": artifact.form, "site": str(artifact.site), "origin": artifact.origin}


def versions() -> dict[str, str]:
    """Versions of this package and of what its numbers depend on."""
    from .. import __version__

    return {
        "easyedit_split": __version__,
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
