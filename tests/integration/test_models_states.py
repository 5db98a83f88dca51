"""Models in every state a user may bring them in: it works and they are put back, or the reason is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from laws import TEXT_PAIRS, assert_close, logits, noisy
from tiny import tiny_model, tiny_tokenizer, token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.errors import NotMergeableError, SiteError
from easyedit_split.generation import generate
from easyedit_split.models.sites import Site
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.sweeps.run import sweep
from easyedit_split.training.trainer import train

CONFIG = TrainConfig(n_epochs=2, batch_size=2, lr=0.01)


def _train(model: Any) -> SteeringArtifact:
    return train(model, tiny_tokenizer(), TEXT_PAIRS, site=Site(1), form="lora", config=CONFIG)


def _state(model: Any) -> list[Any]:
    """Everything about a model that must be found again as it was."""
    return [
        [(n, p.requires_grad, p.clone()) for n, p in model.named_parameters()],
        [(n, m.training, list(m._forward_hooks), list(m._forward_pre_hooks)) for n, m in model.named_modules()],
        getattr(model, "is_activation_checkpointing", None),
    ]


def _same(before: list[Any], after: list[Any]) -> bool:
    weights = all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(before[0], after[0], strict=True))
    return weights and before[1:] == after[1:]


def _dropout(kind: str) -> Any:
    model = tiny_model(kind)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    return model.train()


def _checkpointing(kind: str) -> Any:
    model = tiny_model(kind)
    model.activation_checkpointing_enable()
    return model.train()


def _learning(kind: str) -> Any:
    return tiny_model(kind).requires_grad_(True)


STATES: dict[str, Callable[[str], Any]] = {
    "in train mode": lambda kind: tiny_model(kind).train(),
    "with dropout": _dropout,
    "with gradient checkpointing": _checkpointing,
    "with gradients wanted": _learning,
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_it_works_as_on_a_plain_model_and_is_put_back(kind: str, state: str) -> None:
    """Training, sweeping and generating give what they give on the same model in eval mode."""
    plain, model = tiny_model(kind), STATES[state](kind)
    before = _state(model)
    expected, found = _train(plain), _train(model)
    for name, value in expected.delta.tensors().items():
        assert_close(found.delta.tensors()[name], value)
    tables = [sweep(x, tiny_tokenizer(), TEXT_PAIRS, expected, [0.0, 2.0], "sum") for x in (plain, model)]
    np.testing.assert_allclose(tables[1].loss_pos, tables[0].loss_pos, rtol=1e-5)
    answers = []
    for x in (plain, model):
        with expected.attach(x, 2.0):
            answers.append(generate(x, tiny_tokenizer(), ["q", "another one"], max_new_tokens=5))
    assert answers[0] == answers[1]
    assert _same(before, _state(model))


def test_tied_embeddings_train_and_merge() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen2", vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=259, eos_token_id=258, bos_token_id=256,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    artifact = _train(model)
    with artifact.attach(model, 2.0):
        hooked = logits(model, token_batch())
    with torch.no_grad():
        edit = artifact.merge(model, 2.0)
        assert_close(logits(model, token_batch()), hooked)
        edit.undo()
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_compiled_model_is_refused_with_the_remedy() -> None:
    """Both ways of compiling; nothing is compiled here, the wrapper alone says enough."""
    plain = tiny_model("qwen2")
    artifact = noisy(plain)
    for model in (torch.compile(plain, backend="eager"), _compiled_in_place(tiny_model("qwen2"))):
        with pytest.raises(SiteError, match="attach to the model as it was before torch.compile"):
            artifact.attach(model, 1.0)
        with pytest.raises(SiteError, match="before torch.compile"):
            _train(model)


def _compiled_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def _wrapped(target: str) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(5)
    return get_peft_model(tiny_model("qwen2"), config).eval()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own
@pytest.mark.parametrize("target", ["q_proj", "down_proj"])
def test_a_model_wrapped_by_peft(target: str) -> None:
    """Training and attaching act on top of the adapter; merging where the adapter sits is refused."""
    model = _wrapped(target)
    before = _state(model)
    artifact = _train(model)
    assert _same(before, _state(model))
    with torch.no_grad():
        with artifact.attach(model, 2.0):
            hooked = logits(model, token_batch())
        assert _same(before, _state(model))
        if target == "down_proj":
            with pytest.raises(NotMergeableError, match="merge or unload that adapter first"):
                artifact.merge(model, 2.0)
        else:
            edit = artifact.merge(model, 2.0)
            assert_close(logits(model, token_batch()), hooked)
            edit.undo()
        merged = model.merge_and_unload()
        with artifact.attach(merged, 2.0):
            assert_close(logits(merged, token_batch()), hooked)


def test_an_exception_inside_puts_everything_back() -> None:
    model = tiny_model("gpt2").train()
    before = _state(model)

    class Stop(Exception):
        pass

    class Objective:
        name, needs_reference, ablates_negative_vectors = "stop", False, False

        def __call__(self, losses: Any) -> Any:
            raise Stop

    with pytest.raises(Stop):
        train(model, tiny_tokenizer(), TEXT_PAIRS, site=Site(1), form="vector", objective=Objective(), config=CONFIG)
    assert _same(before, _state(model))


def test_the_same_seed_gives_the_same_bits(lend: Any) -> None:
    """Whatever the state of the global generators before; and these are left as they were."""
    model = lend("llama")
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        config = TrainConfig(n_epochs=2, batch_size=2, dropout=0.2)
        artifact = train(model, tiny_tokenizer(), TEXT_PAIRS, site=Site(1), form="local_weight", config=config)
        assert torch.equal(torch.random.get_rng_state(), state)
        found.append(artifact.delta.tensors())
    assert all(torch.equal(v, found[1][k]) for k, v in found[0].items())
