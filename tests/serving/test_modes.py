"""The same answers where vLLM compiles the model, loads adapters of its own, or splits the model over processes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import CHANGES, QUESTIONS, Reference, farthest, write_artifacts
from engines import Ask, Strengths, engine, written

pytestmark = pytest.mark.vllm

STRENGTHS = (0.0, 2.0, -1.0)
TOLERANCE = 1e-4


def _check(ask: Ask, reference: Reference, names: Sequence[str], questions: Sequence[str]) -> None:
    cells: list[tuple[Strengths, str]] = [({name: (m, m)}, q) for name in names for m in STRENGTHS for q in questions]
    random.Random(0).shuffle(cells)
    for found, (strengths, question) in zip(ask([(written(s), q) for s, q in cells]), cells, strict=True):
        want = reference.answer(strengths, question)
        assert found.tokens == want.tokens and farthest(found, want) < TOLERANCE, (strengths, question)


def test_compiled_and_beside_an_adapter(
    demo: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole graph compiled; and our exported adapter, served by vLLM itself, undone by the change at -m."""
    from vllm.lora.request import LoRARequest

    from easyedit_split.demo import model_path

    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "cache"))
    reference = Reference(demo, folder)
    reference.artifacts["lora"].to_peft(tmp_path / "adapter", m=2.0)
    options = {"enforce_eager": False, "enable_lora": True, "max_lora_rank": 8}
    with engine(Path(model_path()), [folder / name for name in CHANGES], **options) as llm:
        ask = Ask(llm, reference)
        _check(ask, reference, list(CHANGES), QUESTIONS[:2])
        adapter = LoRARequest("steered", 1, str(tmp_path / "adapter"))
        for question in QUESTIONS:
            (exported,) = ask([(None, question)], lora_request=adapter)
            (undone,) = ask([("lora@-2", question)], lora_request=adapter)
            for found, m in ((exported, 2.0), (undone, 0.0)):
                want = reference.answer({"lora": (m, m)}, question)
                assert found.tokens == want.tokens and farthest(found, want) < TOLERANCE


def test_split_over_two_processes(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=320, hidden_size=96, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, pad_token_id=259, eos_token_id=258, bos_token_id=256,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.12)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    folder = write_artifacts(model, tmp_path / "artifacts")
    reference = Reference((model, tokenizer), folder)
    with engine(tmp_path / "model", [folder / name for name in CHANGES], tensor_parallel_size=2) as llm:
        _check(Ask(llm, reference), reference, list(CHANGES), QUESTIONS[:2])
