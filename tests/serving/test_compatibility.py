"""Engines that cannot be steered are refused where they are configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easyedit_split.errors import ArtifactError, ConfigError

pytestmark = pytest.mark.vllm


def _configured(model: Path, artifact: Path, **options: Any) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    from easyedit_split.serving import steering

    arguments = EngineArgs(str(model), dtype="float32", additional_config=steering([artifact]), **options)
    return arguments.create_engine_config()


NGRAM = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculative_config": NGRAM}, "speculative decoding"),
        ({"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}}, "KV transfer"),
        ({"kv_sharing_fast_prefill": True}, "fast prefill"),
        ({"runner": "pooling", "convert": "embed"}, "pooling models"),
    ],
)  # fmt: skip
def test_an_engine_whose_answers_would_be_wrong_is_refused(folder: Path, options: Any, message: str) -> None:
    from easyedit_split.demo import model_path

    with pytest.raises(ConfigError, match=f"steering does not work with {message}"):
        _configured(Path(model_path()), folder / "lora", **options)
    assert _configured(Path(model_path()), folder / "lora")


def test_another_model_is_refused(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(
        "qwen2", vocab_size=300, hidden_size=64, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=2,
        architectures=["Qwen2ForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="whose width is 96, and of this one it is 64"):
        _configured(tmp_path, folder / "lora")
