"""Engines for the tests, and what they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from changes import NEW, Answer, Reference, answers_of

Strengths = dict[str, tuple[float, float]]  # m1 and m2 of each change of a request


@contextmanager
def engine(model: Path, artifacts: Sequence[Path], **options: Any) -> Iterator[Any]:
    """An engine of a model with artifacts to serve, if any; ended afterwards."""
    from vllm import LLM

    from easyedit_split.serving import steering

    usual = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "block_size": 32, "max_num_seqs": 16}
    config = {"additional_config": steering(artifacts)} if artifacts else {}
    llm = LLM(model=str(model), **{**usual, **config, **options})
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


class Ask:
    """Questions to an engine, each with what to steer by (None: nothing)."""

    def __init__(self, llm: Any, reference: Reference) -> None:
        self.llm, self.reference = llm, reference

    def outputs(self, asked: Sequence[tuple[Any, str]], **options: Any) -> list[Any]:
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": self.reference.prompt(question)} for _, question in asked]
        extra = [None if steer is None else {"steer": steer} for steer, _ in asked]
        parameters = [SamplingParams(temperature=0, max_tokens=NEW, logprobs=0, extra_args=e) for e in extra]
        return self.llm.generate(prompts, parameters, use_tqdm=False, **options)

    def __call__(self, asked: Sequence[tuple[Any, str]], **options: Any) -> list[Answer]:
        return answers_of(self.outputs(asked, **options))

    def forget(self) -> None:
        """Empty the prefix cache."""
        assert self.llm.reset_prefix_cache()


def written(strengths: Strengths) -> list[str]:
    """As the text of a request."""
    return [f"{name}@m1={m1!r},m2={m2!r}!" for name, (m1, m2) in strengths.items()]
