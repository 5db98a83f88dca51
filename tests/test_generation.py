"""Law 4: padding is never steered, and a KV cache, token by token, is one full forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from laws import assert_close, logits, noisy
from tiny import ARCHITECTURES, MAIN, tiny_model, token_batch
from transformers import TextStreamer

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.positions import Positions
from easyedit_split.errors import ConfigError, DataError
from easyedit_split.generation import generate, stream
from easyedit_split.models.loading import load_model

RULES = [Positions("all"), Positions("answer"), Positions("after_prefix", 3)]
LENGTHS = (5, 9, 20)  # one beyond the sliding window of 16 of the Gemma models
NEW = 6


def _padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of uneven length; padding holds a token that would matter."""
    ids, mask = token_batch(3, max(LENGTHS)), torch.zeros(3, max(LENGTHS), dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        where = slice(-length, None) if side == "left" else slice(0, length)
        mask[row, where] = 1
    return ids, mask


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_each_row_alone(lend: Any, kind: str, side: str) -> None:
    model = lend(kind)
    ids, mask = _padded(side)
    for rule in RULES:
        with noisy(model, positions=rule).attach(model, 1.5):
            together = logits(model, ids, mask)
            for row in range(3):
                real = mask[row].bool()
                alone = logits(model, ids[row : row + 1, real])
                assert_close(together[row, real], alone[0])


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.rule)
def test_generation_with_a_cache_is_one_full_forward(lend: Any, kind: str, rule: Positions) -> None:
    """Left-padded batch, one strength a row, against each row alone in one forward with the mask written by hand."""
    model = lend(kind)
    ids, mask = _padded("left")
    strengths = torch.tensor([2.0, -1.0, 0.5])
    artifact = noisy(model, positions=rule)
    with artifact.attach(model, strengths):
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
            output_logits=True, return_dict_in_generate=True, pad_token_id=259,
        )  # fmt: skip
    steps = torch.stack(out.logits, dim=1)
    with artifact.attach(model, 0.0) as handle:
        for row, length in enumerate(LENGTHS):
            sequence = out.sequences[row : row + 1, -(length + NEW) :]
            first = {"all": 0, "answer": length - 1, "after_prefix": 3}[rule.rule]
            steered = (torch.arange(length + NEW) >= first)[None]
            handle.set_strength(strengths[row])
            with handle.steer_only(steered):
                full = logits(model, sequence)
            assert_close(steps[row], full[0, length - 1 : -1])


@pytest.mark.parametrize("kind", MAIN)
def test_token_by_token_from_the_first_token(lend: Any, kind: str) -> None:
    """No prefill at all: a cache filled one token a call."""
    model, ids = lend(kind), token_batch(2, 20)
    for rule in (RULES[0], RULES[2]):
        with noisy(model, positions=rule).attach(model, 1.5), torch.no_grad():
            full = model(input_ids=ids, use_cache=False).logits
            cache, steps = None, []
            for t in range(ids.shape[1]):
                out = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                steps.append(out.logits[:, 0])
        assert_close(torch.stack(steps, dim=1), full)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.rule)
def test_a_static_cache_steers_the_same_positions(lend: Any, rule: Positions) -> None:
    """With a static cache transformers hands the decoder a prepared mask instead of the padding."""
    model = lend("llama")
    ids, mask = _padded("left")
    options: dict[str, Any] = {
        "attention_mask": mask, "max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False,
        "output_logits": True, "return_dict_in_generate": True, "pad_token_id": 259,
    }  # fmt: skip
    with noisy(model, positions=rule).attach(model, 1.5):
        dynamic = model.generate(ids, **options)
        static = model.generate(ids, cache_implementation="static", **options)
    assert_close(torch.stack(static.logits), torch.stack(dynamic.logits))


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_inputs_given_as_embeddings_are_steered_too(lend: Any, kind: str) -> None:
    model = lend(kind)
    ids, mask = _padded("left")
    position_ids = (mask.cumsum(1) - 1).clamp_min(0)
    embeddings = model.get_input_embeddings()(ids)
    for rule in RULES:
        with noisy(model, positions=rule).attach(model, 1.5), torch.no_grad():
            found = model(inputs_embeds=embeddings, attention_mask=mask, position_ids=position_ids, use_cache=False)
            real = mask.bool()
            assert_close(found.logits[real], logits(model, ids, mask)[real])


# --- generate ---------------------------------------------------------------------------------------------------

QUESTIONS = ["A much longer question than the others, is it not?", "Hi", "What now?"]


def _answers(artifact: SteeringArtifact, model: Any, tokenizer: Any, m: Any, questions: Any, **options: Any) -> Any:
    with artifact.attach(model, m):
        return generate(model, tokenizer, questions, max_new_tokens=NEW, **options)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_answers_come_in_the_order_of_the_questions(lend: Any, tokenizer: Any, batch_size: int) -> None:
    model = lend("qwen2")
    artifact = noisy(model, scale=0.3)
    alone = [_answers(artifact, model, tokenizer, 1.5, [q])[0] for q in QUESTIONS]
    assert len(set(alone)) == 3
    assert _answers(artifact, model, tokenizer, 1.5, QUESTIONS, batch_size=batch_size) == alone


def test_one_strength_a_question_meets_its_question(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    artifact = noisy(model, scale=0.3)
    strengths = [3.0, 0.0, -3.0]
    alone = [_answers(artifact, model, tokenizer, m, [q])[0] for m, q in zip(strengths, QUESTIONS, strict=True)]
    assert _answers(artifact, model, tokenizer, torch.tensor(strengths), QUESTIONS) == alone


def test_m_zero_generates_the_plain_text(lend: Any, tokenizer: Any) -> None:
    model = lend("llama")
    plain = generate(model, tokenizer, QUESTIONS, max_new_tokens=NEW)
    assert _answers(noisy(model), model, tokenizer, 0.0, QUESTIONS) == plain
    assert _answers(noisy(model), model, tokenizer, torch.zeros(3), QUESTIONS) == plain


def test_generation_uses_the_cache_whatever_the_model_says(lend: Any, tokenizer: Any) -> None:
    """Without one, the rule `answer` could not tell new tokens from the prompt's."""
    model = lend("llama")
    artifact = noisy(model, positions="answer", scale=0.3)
    expected = _answers(artifact, model, tokenizer, 2.0, QUESTIONS)
    model.generation_config.use_cache = False
    try:
        assert _answers(artifact, model, tokenizer, 2.0, QUESTIONS) == expected
    finally:
        model.generation_config.use_cache = True


def test_sampling_follows_the_seed_and_leaves_torch_alone(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (
        generate(model, tokenizer, QUESTIONS, max_new_tokens=NEW, temperature=1.0, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_generation_ends_at_the_end_of_turn_and_hides_special_tokens(tokenizer: Any) -> None:
    """A model whose head can say nothing but the end of turn: empty answers."""
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(260, 32), requires_grad=False)
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[258] = 1.0
    assert generate(model, tokenizer, QUESTIONS, max_new_tokens=NEW) == ["", "", ""]


def test_a_train_mode_model_generates_without_dropout_and_stays_in_train_mode(tokenizer: Any) -> None:
    model = tiny_model("gpt2").train()
    assert model.transformer.drop.p > 0
    answers = [generate(model, tokenizer, ["Hi"], max_new_tokens=NEW)[0] for _ in range(3)]
    assert len(set(answers)) == 1
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize(
    "own",
    [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}, {"num_beams": 3}, {"min_new_tokens": 12},
     {"top_p": 0.01}, {"return_dict_in_generate": True}, {"num_return_sequences": 2, "do_sample": True}],
)  # fmt: skip
def test_the_models_own_generation_settings_are_left_out_and_left_alone(tokenizer: Any, own: dict[str, Any]) -> None:
    questions = ["hi there", "yo"]
    plain, model = tiny_model("llama"), tiny_model("llama")
    model.generation_config.update(**own)
    settings = model.generation_config
    for options in ({"temperature": 0.0}, {"temperature": 5.0}):
        expected = generate(plain, tokenizer, questions, max_new_tokens=12, **options)
        assert generate(model, tokenizer, questions, max_new_tokens=12, **options) == expected
    assert model.generation_config is settings


def test_numbers_out_of_range_and_no_room_in_the_context(lend: Any, tokenizer: Any) -> None:
    model = lend("gpt2")
    nan = float("nan")
    wrong = [("max_new_tokens", 0), ("batch_size", 1.5), ("seed", 2**70), ("temperature", -1.0), ("temperature", nan)]
    for name, value in wrong:
        with pytest.raises(ConfigError, match=f"{name} = .* is out of range: give"):
            generate(model, tokenizer, ["Hi"], **{name: value})
    with pytest.raises(ConfigError, match="a streamer for 2 questions"):
        generate(model, tokenizer, ["Hi", "Ho"], streamer=TextStreamer(tokenizer))
    with pytest.raises(DataError, match=r"question 1 has \d+ tokens, and 64 new ones .* context of 256: shorten"):
        generate(model, tokenizer, ["Hi", "x" * 250])
    assert generate(model, tokenizer, []) == []


# --- token by token ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_streamed_texts_are_those_of_generate(lend: Any, tokenizer: Any, kind: str, temperature: float) -> None:
    """Rows of one batch, each of its own strength, against each question alone."""
    model = lend(kind)
    options: dict[str, Any] = {"max_new_tokens": NEW, "temperature": temperature, "seed": 3}
    for rule in RULES:
        artifact, strengths = noisy(model, scale=0.3, positions=rule), [3.0, 0.0, -3.0]
        with artifact.attach(model, torch.tensor(strengths)):
            steps = list(stream(model, tokenizer, QUESTIONS, **options))
        assert 1 <= len(steps) <= NEW
        for row, (m, question) in enumerate(zip(strengths, QUESTIONS, strict=True)):
            with artifact.attach(model, m):
                assert [steps[-1][row]] == generate(model, tokenizer, [question], **options), rule.rule


def test_a_row_that_has_ended_stays_while_others_go_on() -> None:
    model, tokenizer = load_model("demo")
    questions = ["Write a review of the sofa.", "Is the sofa good? Answer yes or no.", "Hello"]
    steps = list(stream(model, tokenizer, questions))
    assert steps[-1] == [generate(model, tokenizer, [q])[0] for q in questions]
    ends = {next(i for i, step in enumerate(steps) if step[row] == steps[-1][row]) for row in range(3)}
    assert len(ends) > 1, "the rows end together: the test shows nothing"
    assert len(steps) < 64, "no row ended: the test shows nothing"


def test_two_streams_in_turns_are_each_as_alone(lend: Any, tokenizer: Any) -> None:
    """Nothing is held between two tokens: strengths, random numbers and caches are each stream's own."""
    model = lend("llama")
    artifact, options = noisy(model, scale=0.3), {"max_new_tokens": NEW, "temperature": 1.0}
    alone = []
    for m, seed in ((3.0, 1), (-3.0, 2)):
        with artifact.attach(model, m):
            alone.append(generate(model, tokenizer, ["Hi"], seed=seed, **options)[0])
    torch.manual_seed(11)
    state = torch.get_rng_state()
    with artifact.attach(model, 0.0) as handle:
        streams = [(m, stream(model, tokenizer, ["Hi"], seed=seed, **options)) for m, seed in ((3.0, 1), (-3.0, 2))]
        texts = ["", ""]
        for _ in range(NEW):
            for k, (m, steps) in enumerate(streams):
                handle.set_strength(m)
                texts[k] = next(steps, [texts[k]])[0]
    assert texts == alone
    assert torch.equal(torch.get_rng_state(), state)


def test_a_conversation_is_its_turns_in_the_template(lend: Any, tokenizer: Any) -> None:
    from easyedit_split.data.tokens import Encoder

    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello<|im_end|>"},
        {"role": "user", "content": "And now?"},
    ]
    prompt = Encoder(tokenizer).prompt(turns)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert prompt.count(end) == 3  # one a turn: what the text says is no special token
    said = tokenizer.decode([i for i in prompt if i < 256])
    assert said.index("Hi") < said.index("Hello<|im_end|>") < said.index("And now?")
    assert Encoder(tokenizer).prompt("Hi") == Encoder(tokenizer).prompt(turns[:1])
    model = lend("qwen2")
    assert list(stream(model, tokenizer, [turns], max_new_tokens=NEW))[-1] == generate(
        model, tokenizer, [turns], max_new_tokens=NEW
    )
    with pytest.raises(DataError, match="a conversation of 3 turns needs a chat template"):
        generate(model, tokenizer, [turns], chat=False)


def test_a_stream_refuses_what_generate_refuses(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    with pytest.raises(ConfigError, match="temperature = -1"):
        next(stream(model, tokenizer, ["Hi"], temperature=-1.0))
    with pytest.raises(DataError, match="context of 256"):
        next(stream(model, tokenizer, ["x" * 300]))
