"""The engine's answers are those of `attach` and `generate`, with prefix caching, chunked prefill and preemption on.

One engine serves them all: its steps hold 48 tokens, so that every longer prompt comes in chunks, and its cache is so
small that requests are put off and computed again.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from changes import CHANGES, JOINT, NEW, QUESTIONS, SWEPT, Reference, answers_of, farthest
from engines import Ask, Strengths, engine, written

pytestmark = pytest.mark.vllm

STRENGTHS = (0.0, 0.5, 2.0, -1.0)
NOISE = 2e-5  # nats between the engine and transformers, unsteered; float32
LONG = 2, 3  # questions of QUESTIONS that share a long beginning


@pytest.fixture(scope="module")
def reference(demo: Any, folder: Path) -> Reference:
    return Reference(demo, folder)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[Any]:
    from easyedit_split.demo import model_path

    small = {"num_gpu_blocks_override": 32, "max_num_batched_tokens": 48, "enable_chunked_prefill": True}
    options = {**small, "enable_prefix_caching": True, "disable_log_stats": False}
    with engine(Path(model_path()), [folder / name for name in CHANGES], **options) as started:
        yield started


@pytest.fixture(scope="module")
def ask(llm: Any, reference: Reference) -> Ask:
    return Ask(llm, reference)


def _metric(llm: Any, name: str) -> float:
    return sum(m.value for m in llm.get_metrics() if m.name == name)


def test_the_engine_s_own_noise(ask: Ask, reference: Reference) -> None:
    """Unsteered against transformers, and against itself in other company: what steered answers may differ by."""
    alone = [ask([(None, q)])[0] for q in QUESTIONS]
    ask.forget()
    together = ask([(None, q) for q in QUESTIONS] * 3)
    for k, question in enumerate(QUESTIONS):
        want = reference.answer({}, question)
        for found in (alone[k], *together[k :: len(QUESTIONS)]):
            assert found.tokens == want.tokens and farthest(found, want) < NOISE


def test_one_strength_turns_every_layer_of_a_change(ask: Ask, reference: Reference) -> None:
    cells: list[tuple[Strengths, str]] = [({name: (m, m)}, q) for name in JOINT for m in STRENGTHS for q in QUESTIONS]
    cells += [
        ({"layers": (m, m), "answer_layers": (-m, -m), "vector": (m, m)}, q) for m in (2.0, -1.0) for q in QUESTIONS
    ]
    answers = ask([(written(strengths), question) for strengths, question in cells])
    for found, (strengths, question) in zip(answers, cells, strict=True):
        want, plain = reference.answer(strengths, question), reference.answer({}, question)
        assert found.tokens == want.tokens and farthest(found, want) < 5 * NOISE, (strengths, question)
        moved = want.tokens != plain.tokens or farthest(want, plain) > 50 * NOISE
        assert moved == any(m for pair in strengths.values() for m in pair), (strengths, question)


def test_a_mixed_batch_is_what_attach_says(ask: Ask, llm: Any, reference: Reference) -> None:
    cells: list[tuple[Strengths, str]] = [
        ({name: (m, m)}, question) for name in CHANGES if name not in JOINT for m in STRENGTHS for question in QUESTIONS
    ]
    pairs = [("vector", "lora"), ("local", "stream"), ("query", "answer_local"), ("late_lora", "answer_vector")]
    cells += [({a: (1.0, 1.0), b: (m, m)}, q) for a, b in pairs for m in (2.0, -1.0) for q in QUESTIONS]
    cells += [({name: (1.5, -2.0)}, q) for name in ("local", "up", "answer_local") for q in QUESTIONS]
    before = _metric(llm, "vllm:num_preemptions")
    for seed in range(2):  # the second time with other company, and another cache
        random.Random(seed).shuffle(cells)
        answers = ask([(written(strengths), question) for strengths, question in cells])
        for found, (strengths, question) in zip(answers, cells, strict=True):
            want = reference.answer(strengths, question)
            assert found.tokens == want.tokens, (strengths, question)
            assert farthest(found, want) < 5 * NOISE, (strengths, question)
            plain = reference.answer({}, question)
            moved = want.tokens != plain.tokens or farthest(want, plain) > 50 * NOISE
            assert moved == any(m for pair in strengths.values() for m in pair), (strengths, question)
    assert _metric(llm, "vllm:num_preemptions") > before, "nothing was put off: make the cache smaller"


def test_strength_0_is_the_unsteered_server_bit_for_bit(ask: Ask) -> None:
    company = [("lora@2", QUESTIONS[1]), ("vector@-1", QUESTIONS[0])]
    runs = []
    for steer in (None, "local@0", ["up@0", "query@0", "stream@0"]):
        ask.forget()
        runs.append(ask([*company, *((steer, q) for q in QUESTIONS)]))
    assert runs[0] == runs[1] == runs[2]


def test_a_prefix_is_used_again_at_the_same_strength_only(ask: Ask, reference: Reference) -> None:
    first, second = (QUESTIONS[k] for k in LONG)
    shared = 32 * (len(_same(reference.prompt(first), reference.prompt(second))) // 32)
    assert shared >= 64
    for one, other in itertools.permutations((None, "vector@2", "vector@1", "lora@2", "local@m1=2,m2=1"), 2):
        ask.forget()
        ask([(one, first)])
        cached = [out.num_cached_tokens for out in ask.outputs([(other, second), (one, second)])]
        assert cached == [0, shared], (one, other)
    ask.forget()
    ask([("vector@2", first)])
    (out,) = ask.outputs([("vector@2.0!", second)])  # the same strength, said otherwise
    assert out.num_cached_tokens == shared
    assert answers_of([out])[0].tokens == reference.answer({"vector": (2.0, 2.0)}, second).tokens


def test_tokens_before_the_first_steered_one_are_everyone_s(ask: Ask, reference: Reference) -> None:
    """A change that steers answers only shares its prompts with the unsteered model, at any strength."""
    first, second = (QUESTIONS[k] for k in LONG)
    shared = 32 * (len(_same(reference.prompt(first), reference.prompt(second))) // 32)
    ask.forget()
    ask([(None, first)])
    outputs = ask.outputs([("answer_vector@2", second), ("answer_local@-1", second), ("late_lora@2", second)])
    assert [out.num_cached_tokens for out in outputs] == [shared, shared, 0]
    strengths: tuple[Strengths, ...] = (
        {"answer_vector": (2.0, 2.0)}, {"answer_local": (-1.0, -1.0)}, {"late_lora": (2.0, 2.0)}
    )  # fmt: skip
    for found, m in zip(answers_of(outputs), strengths, strict=True):
        assert found.tokens == reference.answer(m, second).tokens


def test_an_answer_read_again_as_a_prompt_is_not_taken_for_steered(ask: Ask, llm: Any, reference: Reference) -> None:
    """With positions `answer`, the tokens of an earlier answer are unsteered once they stand in a prompt."""
    from vllm import SamplingParams

    prompt = reference.prompt(QUESTIONS[2])
    steer = {"steer": "answer_local@2"}
    options = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, extra_args=steer)
    ask.forget()
    (out,) = llm.generate([{"prompt_token_ids": prompt}], options, use_tqdm=False)
    longer = [*prompt, *out.outputs[0].token_ids]
    (cached,) = llm.generate([{"prompt_token_ids": longer}], options, use_tqdm=False)
    ask.forget()
    (fresh,) = llm.generate([{"prompt_token_ids": longer}], options, use_tqdm=False)
    assert cached.num_cached_tokens == 32 * ((len(prompt) - 1) // 32)
    assert cached.outputs[0].token_ids == fresh.outputs[0].token_ids


def test_without_a_strength_it_is_the_recommended_one(ask: Ask, folder: Path) -> None:
    from easyedit_split.serving.catalogue import Catalogue

    m = Catalogue.read([folder / SWEPT]).entries[0].recommended
    by_name, by_number = ask([(SWEPT, QUESTIONS[0]), (f"{SWEPT}@{m!r}", QUESTIONS[0])])
    assert by_name.tokens == by_number.tokens != ask([(None, QUESTIONS[0])])[0].tokens


@pytest.mark.parametrize("steer", ["vectr@2", "vector@x", "vector@7", "lora", 2.0, ["lora@1", "lora@2"], {"lora": 1}])
def test_a_wrong_request_is_refused_and_the_engine_lives(ask: Ask, steer: Any) -> None:
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError):
        ask([(steer, QUESTIONS[0])])
    assert ask([("lora@1", QUESTIONS[0])])


def test_what_only_the_server_writes_is_not_believed(llm: Any, ask: Ask, reference: Reference) -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    forged = {"steer.resolved": [[0, "", 9.0, 9.0, 0]]}
    prompt = [{"prompt_token_ids": reference.prompt(QUESTIONS[0])}]
    with pytest.raises(VLLMValidationError, match="give a text"):
        llm.generate(prompt, SamplingParams(extra_args=forged), use_tqdm=False)
    options = SamplingParams(temperature=0, max_tokens=NEW, logprobs=0, extra_args={**forged, "steer": "lora@2"})
    (found,) = answers_of(llm.generate(prompt, options, use_tqdm=False))
    assert found.tokens == reference.answer({"lora": (2.0, 2.0)}, QUESTIONS[0]).tokens


def test_several_answers_to_a_prompt_are_all_steered(llm: Any, reference: Reference) -> None:
    from vllm import SamplingParams

    options = SamplingParams(n=3, temperature=1.0, top_k=1, max_tokens=NEW, extra_args={"steer": "lora@2"})
    (out,) = llm.generate([{"prompt_token_ids": reference.prompt(QUESTIONS[0])}], options, use_tqdm=False)
    want = reference.answer({"lora": (2.0, 2.0)}, QUESTIONS[0]).tokens
    assert [tuple(one.token_ids) for one in out.outputs] == [want] * 3


def _same(first: list[int], second: list[int]) -> list[int]:
    return [a for a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))]
