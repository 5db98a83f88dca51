"""Changes served by vLLM, with a strength for each request: a plugin of the stock engine.

    from vllm import LLM, SamplingParams
    from easyedit_split.serving import steering

    llm = LLM(model="...", additional_config=steering(["runs/vector"]))
    llm.generate(prompts, SamplingParams(extra_args={"steer": "vector@2.0"}))

This is the only part of the package that imports vllm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def steering(artifacts: Sequence[str | Path]) -> dict[str, Any]:
    """What `LLM(additional_config=...)` needs to serve `artifacts`: folders, or `NAME=FOLDER`.

    Raises:
        ConfigError: a name that cannot be served, or one given twice.
        ArtifactError: no artifact there, or a broken one.
    """
    from .catalogue import Catalogue

    return Catalogue.read(artifacts).config()
