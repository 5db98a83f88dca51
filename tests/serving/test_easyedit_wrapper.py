"""A vector through EasyEdit's own vLLM hooks: needs vLLM, and a checkout of EasyEdit that has such hooks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from changes import QUESTIONS, Reference, farthest
from engines import Ask, engine

from easyedit_split.easyedit.under_vllm import apply_under_vllm
from easyedit_split.errors import ArtifactError, HostError

pytestmark = [pytest.mark.vllm, pytest.mark.host]
HOOKS = "steer/vector_appliers/vllm_activation_utils.py"
HOMES = [home for home in os.environ.get("EASYEDIT_HOME", "").split(":") if home and (Path(home) / HOOKS).exists()]


@pytest.mark.skipif(not HOMES, reason="EASYEDIT_HOME names no checkout with hooks for vLLM")
def test_a_vector_is_added_at_its_block_s_output(demo: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from easyedit_split.demo import model_path

    monkeypatch.setattr(sys, "path", [*sys.path, HOMES[0]])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), HOMES[0]]))
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # EasyEdit sends its hooks to vLLM's workers
    reference = Reference(demo, folder)
    change = reference.artifacts
    with engine(Path(model_path()), []) as llm:
        ask, wrapper = Ask(llm, reference), SimpleNamespace(VLLM_model=llm)
        for name in ("lora", "answer_vector", "value"):
            with pytest.raises(HostError, match="set vllm_enable: false"):
                apply_under_vllm("split", wrapper, [(1.0, change[name])])
        other = SimpleNamespace(**{**vars(change["vector"]), "model": {**change["vector"].model, "width": 64}})
        other.form, other.acts_at_block_output = "vector", True
        with pytest.raises(ArtifactError, match="whose width is 64, and of this one it is 96"):
            apply_under_vllm("split", wrapper, [(1.0, other)])  # type: ignore[list-item]
        for name, m in (("vector", 2.0), ("vector", -1.0), ("stream", 0.5), ("vector", 0.0)):
            apply_under_vllm("split", wrapper, [(m, change[name])])
            for question, found in zip(QUESTIONS, ask([(None, q) for q in QUESTIONS]), strict=True):
                want = reference.answer({name: (m, m)}, question)
                assert found.tokens == want.tokens and farthest(found, want) < 1e-4, (name, m, question)
            apply_under_vllm("split", wrapper, [(0.0, change[name])])
