"""Law 6 and what scoring stands on: Hugging Face's own loss, one answer after the other, without any shortcut."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from laws import assert_close, encoded_pairs, noisy
from tiny import ARCHITECTURES, MAIN, random_delta, tiny_model

from easyedit_split.changes.attach import ablate_direction, attach
from easyedit_split.changes.forms import FORMS, make_delta
from easyedit_split.changes.positions import Positions
from easyedit_split.data.tokens import EncodedPair
from easyedit_split.errors import ConfigError, DataError, SiteError
from easyedit_split.models.block_output import adds_to_stream
from easyedit_split.models.sites import Site, resolve_site
from easyedit_split.scoring import memory
from easyedit_split.scoring.memory import zeros_somewhere
from easyedit_split.scoring.prefix_reuse import shared_prefixes
from easyedit_split.scoring.rows import lay_out, row_length
from easyedit_split.scoring.scorer import PairLosses, PairScorer, Reuse, sequence_nll
from easyedit_split.scoring.token_losses import token_losses

RULES = [Positions("all"), Positions("answer"), Positions("after_prefix", 3)]
REUSE: tuple[Reuse, ...] = ("nothing", "below", "block")
ALL = torch.arange(5)
unprobed = partial(PairScorer, packed=True, reuse="below")  # where runs of blocks are counted


def _resting(model: Any, layer: int) -> Any:
    """The handle of a change at `layer` whose dial stands at 0."""
    return noisy(model, "vector", layer=layer).attach(model, 0.0)


def _labelled(prompt: Any, answer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[*prompt, *answer]]), torch.tensor([[-100] * len(prompt) + list(answer)])


@torch.no_grad()
def _reference(model: Any, pair: EncodedPair, handle: Any = None, m: float = 0.0) -> list[float]:
    """Both answers' summed losses by the model's own `labels=`, one sequence a call, steered positions by hand."""
    sums = []
    for answer in (pair.matching, pair.not_matching):
        ids, labels = _labelled(pair.prompt, answer)
        if handle is None:
            mean = model(input_ids=ids, labels=labels, use_cache=False).loss
        else:
            rule = handle.positions
            first = {"all": 0, "answer": len(pair.prompt) - 1, "after_prefix": rule.prefix}[rule.rule]
            handle.set_strength(m)
            with handle.steer_only((torch.arange(ids.shape[1]) >= first)[None]):
                mean = model(input_ids=ids, labels=labels, use_cache=False).loss
        sums.append(float(mean) * len(answer))
    return sums


def _both(losses: PairLosses) -> torch.Tensor:
    return torch.stack([losses.matching, losses.not_matching], dim=1).detach()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_sequence_nll_is_the_models_own_loss(lend: Any, kind: str) -> None:
    """`labels=` averages over answer tokens: `reduction="mean"`; times their number: `"sum"`."""
    model = lend(kind)
    for pair in encoded_pairs(3):
        for answer in (pair.matching, pair.not_matching):
            ids, labels = _labelled(pair.prompt, answer)
            own = float(model(input_ids=ids, labels=labels).loss)
            assert sequence_nll(model, pair.prompt, answer, "mean") == pytest.approx(own, rel=1e-5)
            assert sequence_nll(model, pair.prompt, answer, "sum") == pytest.approx(own * len(answer), rel=1e-5)


def test_sequence_nll_runs_the_model_once(lend: Any) -> None:
    model, calls = lend("qwen2"), []
    hook = model.model.register_forward_hook(lambda module, args, output: calls.append(1))
    sequence_nll(model, [1, 2, 3], [4, 5], "sum")
    hook.remove()
    assert len(calls) == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.rule)
def test_sequence_nll_steers_the_positions_of_the_rule(lend: Any, rule: Positions) -> None:
    model, pair = lend("qwen2"), encoded_pairs()[1]
    with noisy(model, layer=2, positions=rule).attach(model, 2.0) as handle:
        found = [sequence_nll(model, pair.prompt, a, "sum") for a in (pair.matching, pair.not_matching)]
        assert found == pytest.approx(_reference(model, pair, handle, 2.0), rel=1e-5)


@pytest.mark.parametrize("rule", [*RULES, Positions("after_prefix", 40)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_padded_call_and_a_packed_row_steer_the_same_prompt_tokens(rule: Positions, seed: int) -> None:
    """The rule by a call's padding, as in generation, and by a scored row's prompt length, as in training."""
    lengths = torch.randint(1, 9, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    width = max(lengths)
    padding = torch.tensor([[0] * (width - n) + [1] * n for n in lengths])
    by_call = rule.mask(width, padding, 0)
    scored = lay_out([EncodedPair(tuple(range(n)), (1, 2), (3,)) for n in lengths]).steered(rule)
    for i, n in enumerate(lengths):
        prompt = [True] * n if scored is None else scored[i, :n].tolist()
        assert by_call is not None and by_call[i].tolist() == [False] * (width - n) + prompt


def test_sequence_nll_says_its_reduction_and_needs_tokens(lend: Any) -> None:
    model = lend("gpt2")
    with pytest.raises(ConfigError, match="reduction 'Sum' is unknown: say 'sum' or 'mean'"):
        sequence_nll(model, [1], [2], "Sum")
    for prompt, answer in (([], [1]), ([1], [])):
        with pytest.raises(DataError, match="both need at least one"):
            sequence_nll(model, prompt, answer, "sum")


def test_sequence_nll_of_a_model_in_train_mode_has_no_dropout() -> None:
    model = tiny_model("gpt2")
    expected = sequence_nll(model, [1, 2], [3, 4], "sum")
    model.train()
    assert sequence_nll(model, [1, 2], [3, 4], "sum") == expected
    assert all(m.training for m in model.modules())


def test_two_different_answers_are_disjoint_events(lend: Any) -> None:
    """All answers of up to two tokens over a vocabulary of four, end token included: probabilities below 1 in sum.

    The head is masked to four tokens, one of them the end; the answers are the three one-token ones (end appended),
    and the empty one. A sum over answers without their end token would exceed 1 here.
    """
    model = tiny_model("qwen2")
    allowed = [10, 11, 12, 258]
    model.lm_head = torch.nn.Linear(32, 260)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))
        model.lm_head.bias.fill_(-1e9)
        model.lm_head.bias[allowed] = 0.0
    prompt = [1, 2, 3]
    with_end = [[258], *([t, 258] for t in allowed[:3]), *([t, u, 258] for t in allowed[:3] for u in allowed[:3])]
    longer = [[t, u, v] for t in allowed[:3] for u in allowed[:3] for v in allowed[:3]]
    total = sum(math.exp(-sequence_nll(model, prompt, a, "sum")) for a in with_end + longer)
    assert total == pytest.approx(1.0, abs=1e-4)  # these events share the whole probability


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.rule)
def test_every_shortcut_gives_the_models_own_loss(lend: Any, kind: str, rule: Positions) -> None:
    """Law 6: packed or in separate rows, with or without prefix reuse, steered and not, one strength a pair."""
    model, pairs = lend(kind), encoded_pairs()
    artifact = noisy(model, layer=2, positions=rule)
    strengths = torch.tensor([1.5, -1.0, 0.0, 0.5, 3.0])
    with artifact.attach(model, 0.0) as handle:
        plain = torch.tensor([_reference(model, p) for p in pairs])
        expected = torch.tensor([_reference(model, p, handle, float(m)) for p, m in zip(pairs, strengths, strict=True)])
        assert not torch.allclose(expected, plain)
        for packed in (True, False):
            for reuse in REUSE:
                scorer = PairScorer(model, pairs, handle, reuse=reuse, packed=packed)
                handle.set_strength(strengths)
                with torch.no_grad():
                    assert_close(_both(scorer.losses(ALL)), expected)
                    assert_close(_both(scorer.losses(ALL)), expected)  # now from the store
                    handle.set_strength(0.0)
                    assert_close(_both(scorer.losses(ALL)), plain)
        counts = scorer.losses(ALL)
    assert counts.matching_tokens.tolist() == [len(p.matching) for p in pairs]
    assert counts.not_matching_tokens.tolist() == [len(p.not_matching) for p in pairs]


@pytest.mark.parametrize("layers", [(1, 2), (2, 2), (2, 1)])
def test_two_scorers_of_one_model_each_steer_by_their_own_handle(lend: Any, layers: tuple[int, int]) -> None:
    """A scorer reuses what lies below its own change, with the other one in it as it stands."""
    model, pairs = lend("qwen2"), encoded_pairs()
    one, other = noisy(model, layer=layers[0], seed=7), noisy(model, layer=layers[1])
    with one.attach(model, -1.0) as first, other.attach(model, 2.0) as second, torch.no_grad():
        plain = torch.tensor([_reference(model, pair, first, -1.0) for pair in pairs])
        for handle in (first, second):
            for reuse in REUSE:
                assert_close(_both(PairScorer(model, pairs, handle, reuse=reuse).losses(ALL)), plain)


@pytest.mark.parametrize("kind", MAIN)
def test_any_order_with_repeats_and_partial_knowledge(lend: Any, kind: str) -> None:
    """Pairs reach the store in whatever order training draws them, some of them twice in a batch."""
    model, pairs = lend(kind), encoded_pairs()
    with torch.no_grad(), _resting(model, 3) as handle:
        expected = _both(PairScorer(model, pairs).losses(ALL))
        scorer = PairScorer(model, pairs, handle)
        for indices in ([3], [1, 3, 3], [4, 0, 1, 2], [2, 2, 2, 2, 2, 0]):
            assert_close(_both(scorer.losses(torch.tensor(indices))), expected[indices])


# What a change adds to its block


NORMED = ("gemma2", "gemma3_text")  # a norm follows the feed-forward


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize(
    "component", ["residual", "mlp.down_proj", "mlp.up_proj", "self_attn.o_proj", "self_attn.v_proj"]
)
def test_which_sites_only_add_to_their_block(lend: Any, kind: str, component: str) -> None:
    model = lend(kind)
    try:
        site = resolve_site(model, Site(1, component))
    except SiteError:
        assert component == "mlp.up_proj" and kind in ("gpt2", "gpt_neox")
        return
    expected = {"residual": True, "mlp.down_proj": kind not in NORMED}
    with torch.no_grad():
        assert adds_to_stream(model, site) is expected.get(component, False)


@pytest.mark.parametrize("scale", [1.0, 0.97])
def test_massive_activations_do_not_hide_what_follows(scale: float) -> None:
    """The first token of a trained model may carry numbers thousands of times larger than the others'."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[0, :2] = 1000.0
        hook = model.model.layers[1].mlp.register_forward_hook(lambda module, args, output: scale * output)
        assert adds_to_stream(model, resolve_site(model, Site(1))) is (scale == 1.0)
        assert not adds_to_stream(model, resolve_site(model, Site(1, "self_attn.o_proj")))
    hook.remove()


def test_where_something_else_is_hooked_the_block_is_run(lend: Any) -> None:
    model, pairs = lend("llama"), encoded_pairs()
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    hook = model.model.layers[2].register_forward_hook(lambda m, args, output: ablate_direction(output, direction))
    with noisy(model, layer=2).attach(model, 1.5) as handle, torch.no_grad():
        expected = _both(PairScorer(model, pairs, handle, reuse="nothing").losses(ALL))
        scorer = PairScorer(model, pairs, handle)
        assert_close(_both(scorer.losses(ALL)), expected)
    hook.remove()
    assert scorer.store is not None and scorer.store.layer == 2


def test_a_block_that_scales_what_it_adds_is_found_out(lend: Any) -> None:
    """As architectures with a residual multiplier do: the change must then run through the block."""
    model, pairs = lend("llama"), encoded_pairs()
    hook = model.model.layers[2].mlp.register_forward_hook(lambda module, args, output: 0.2 * output)
    with noisy(model, layer=2).attach(model, 1.5) as handle, torch.no_grad():
        assert not adds_to_stream(model, handle.site)
        expected = _both(PairScorer(model, pairs, handle, reuse="nothing").losses(ALL))
        assert_close(_both(PairScorer(model, pairs, handle).losses(ALL)), expected)
    hook.remove()


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_adding_to_the_stored_block_is_running_it(lend: Any, kind: str, form: str, layer: int) -> None:
    """Losses and gradients, at one strength a pair, by every rule; layer 3 is the last."""
    model, pairs = lend(kind), encoded_pairs()
    for rule in RULES:
        with noisy(model, form, layer=layer, positions=rule).attach(model, 0.0) as handle:
            handle.set_strength(
                m1=torch.tensor([1.5, -1.0, 0.0, 0.5, 3.0]), m2=torch.tensor([0.5, 1.0, 0.0, -2.0, 1.0])
            )
            handle.delta.requires_grad_(True)
            found = []
            for reuse in ("below", "block"):
                losses = PairScorer(model, pairs, handle, reuse=reuse).losses(ALL)
                handle.delta.zero_grad()
                losses.matching.sum().backward()
                found.append([_both(losses), *(p.grad.clone() for p in handle.delta.parameters())])
            handle.delta.requires_grad_(False)
        for run, added in zip(*found, strict=True):
            torch.testing.assert_close(added, run, rtol=1e-4, atol=1e-4 * float(run.abs().max()))


@pytest.mark.parametrize("form", FORMS)
def test_a_block_that_is_added_to_runs_once_a_pair(lend: Any, form: str) -> None:
    model, pairs = lend("qwen2"), encoded_pairs()
    with noisy(model, form, layer=2).attach(model, 1.0) as handle, torch.no_grad():
        scorer = PairScorer(model, pairs, handle)
        ran: list[int] = []
        hook = model.model.layers[2].register_forward_hook(lambda module, args, output: ran.append(len(args[0])))
        for m in (1.0, 2.0, -3.0):
            handle.set_strength(m)
            scorer.losses(ALL)
        hook.remove()
    assert sum(ran) == len(pairs)
    assert scorer.store is not None and len(scorer.store._flat) == (1 if form == "vector" else 2)


def test_inputs_that_do_not_fit_in_memory_are_not_stored(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = lend("qwen2"), encoded_pairs()
    monkeypatch.setattr("easyedit_split.scoring.memory.HOST_BYTES", 0)
    with noisy(model, layer=2).attach(model, 1.0) as handle, torch.no_grad():
        scorer = PairScorer(model, pairs, handle)
        expected = _both(PairScorer(model, pairs, handle, reuse="nothing").losses(ALL))
        assert_close(_both(scorer.losses(ALL)), expected)
    assert scorer.store is not None and scorer.store.layer == 2


def test_unknown_neighbours_of_the_store_cannot_spread(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding reads the next pairs' places in the store; memory that was never written may hold NaN."""
    model, pairs = lend("qwen2"), encoded_pairs()
    order = sorted(range(5), key=lambda i: row_length(pairs[i]))
    pairs = [pairs[i] for i in (order[0], order[1], order[4], order[2], order[3])]

    def poisoned(*shape: Any, **options: Any) -> torch.Tensor:
        return torch.zeros(*shape, **options).fill_(float("nan"))

    monkeypatch.setattr(torch, "empty", poisoned)
    with torch.no_grad(), _resting(model, 2) as handle:
        found = _both(PairScorer(model, pairs, handle).losses(torch.tensor([0, 2])))
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_states_that_are_no_numbers_stay_with_their_pair(layer: int) -> None:
    """Padding is zero: what a neighbour's place holds would pass the mask where it is not a number."""
    model, pairs = tiny_model("qwen2"), encoded_pairs()
    with torch.no_grad():
        model.get_input_embeddings().weight[259] = float("nan")
    bad = EncodedPair((259, *pairs[3].prompt[1:]), pairs[3].matching, pairs[3].not_matching)
    pairs = [EncodedPair((1,), (2,), (3,)), *pairs[:3], bad, *pairs[4:]]
    with torch.no_grad(), _resting(model, layer) as handle:
        scorer = PairScorer(model, pairs, handle, reuse="below", packed=True)
        found = _both(scorer.losses(torch.arange(len(pairs))))
    assert found.isfinite().all(dim=1).tolist() == [i != 4 for i in range(len(pairs))]


@pytest.mark.parametrize("reserves", [True, False], ids=["reserved", "without posix_fallocate"])
def test_states_that_no_disk_holds_are_one_sentence(monkeypatch: pytest.MonkeyPatch, reserves: bool) -> None:
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")
    with pytest.raises(ConfigError, match="hidden states fit neither in memory nor in .*set TMPDIR"):
        zeros_somewhere(10**13, torch.empty(1, 1, 32))


@pytest.mark.parametrize("rule", [Positions("answer"), Positions("after_prefix", 2)])
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_second_change_keeps_its_own_positions(lend: Any, layer: int, rule: Positions) -> None:
    """Scoring under another change that is attached already, below, at and above the layer: as one by one."""
    model, pairs = lend("qwen2"), encoded_pairs()
    first, second = noisy(model, layer=layer, positions=rule, seed=5), noisy(model, "vector", layer=2)
    with first.attach(model, 3.0) as other, second.attach(model, 2.0) as handle, torch.no_grad():
        for reuse in REUSE:
            found = _both(PairScorer(model, pairs, handle, reuse=reuse).losses(ALL))
            assert_close(found, torch.tensor([_reference(model, pair, other, 3.0) for pair in pairs]))


@pytest.mark.parametrize("reserves", [True, False], ids=["reserved", "without posix_fallocate"])
def test_a_store_that_spills_to_disk_gives_the_same(lend: Any, monkeypatch: pytest.MonkeyPatch, reserves: bool) -> None:
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")
    reserved = []
    real = memory._reserve
    monkeypatch.setattr(memory, "_reserve", lambda file, size: reserved.append(size) or real(file, size))
    model, pairs = lend("gemma2"), encoded_pairs()
    with torch.no_grad(), _resting(model, 2) as handle:
        expected = _both(PairScorer(model, pairs, handle, reuse="below").losses(ALL))
        monkeypatch.setattr("easyedit_split.scoring.memory.HOST_BYTES", 0)
        scorer = PairScorer(model, pairs, handle, reuse="below")
        assert torch.equal(_both(scorer.losses(ALL)), expected)
        assert torch.equal(_both(scorer.losses(ALL)), expected)
    assert scorer.store is not None and reserved == [scorer.store.nbytes]


def _runs_of_block_0(model: Any) -> tuple[list[int], Any]:
    rows: list[int] = []
    return rows, model.model.layers[0].register_forward_hook(lambda module, args, out: rows.append(len(args[0])))


def test_shared_prefixes_run_the_lower_blocks_once_for_all(lend: Any) -> None:
    model, pairs = lend("qwen2"), encoded_pairs()
    with torch.no_grad(), _resting(model, 2) as at_2, _resting(model, 3) as at_3:
        alone = _both(unprobed(model, pairs, at_2).losses(ALL))
        others = _both(unprobed(model, pairs[::-1], at_2).losses(ALL))
        rows, hook = _runs_of_block_0(model)
        with shared_prefixes():
            for _ in range(3):
                assert torch.equal(_both(unprobed(model, list(pairs), at_2).losses(ALL)), alone)
            assert sum(rows) == len(pairs)
            assert torch.equal(_both(unprobed(model, pairs[::-1], at_2).losses(ALL)), others)
            unprobed(model, pairs, at_3).losses(ALL)
            assert sum(rows) == 3 * len(pairs)
        unprobed(model, pairs, at_2).losses(ALL)
        assert sum(rows) == 4 * len(pairs), "nothing is shared afterwards"
        hook.remove()


def test_shared_prefixes_give_up_the_oldest_for_memory(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = lend("qwen2"), encoded_pairs()
    rows, hook = _runs_of_block_0(model)
    with torch.no_grad(), shared_prefixes(), _resting(model, 2) as at_2, _resting(model, 3) as at_3:
        first = unprobed(model, pairs, at_2)
        first.losses(ALL)
        assert first.store is not None
        monkeypatch.setattr("easyedit_split.scoring.memory.HOST_BYTES", int(1.5 * first.store.nbytes))
        unprobed(model, pairs, at_3).losses(ALL)
        unprobed(model, pairs[:2], at_3)  # room is made for what comes: the oldest goes, the younger stays
        before = sum(rows)
        unprobed(model, pairs, at_3).losses(ALL)
        assert sum(rows) == before
        unprobed(model, pairs, at_2).losses(ALL)
        assert sum(rows) == before + len(pairs)
    hook.remove()


def test_filling_the_store_halves_what_does_not_fit(lend: Any) -> None:
    model, pairs = lend("qwen2"), encoded_pairs()
    rows: list[int] = []

    def small(module: Any, args: Any) -> None:
        rows.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("too much")

    with torch.no_grad(), _resting(model, 2) as handle:
        expected = _both(unprobed(model, pairs, handle).losses(ALL))
        hook = model.model.layers[0].register_forward_pre_hook(small)
        found = _both(unprobed(model, pairs, handle).losses(ALL))
        hook.remove()
    assert max(rows) > 2
    assert_close(found, expected)


@pytest.mark.parametrize("kind", MAIN)
def test_the_store_does_not_depend_on_the_dial(lend: Any, kind: str) -> None:
    """What lies below is stored without steering, even when the first call is steered."""
    model, pairs = lend(kind), encoded_pairs()
    with noisy(model, layer=2).attach(model, 5.0) as handle, torch.no_grad():
        scorer = PairScorer(model, pairs, handle)
        scorer.losses(ALL)
        handle.set_strength(0.0)
        plain = _both(scorer.losses(ALL))
    with torch.no_grad():
        assert_close(plain, _both(PairScorer(model, pairs).losses(ALL)))


def test_an_error_while_scoring_leaves_the_blocks_in_place(lend: Any) -> None:
    model, pairs = lend("llama"), encoded_pairs()
    blocks = list(model.model.layers)
    with noisy(model, layer=2).attach(model, torch.ones(3)) as handle:
        scorer = PairScorer(model, pairs, handle)
        with pytest.raises(ConfigError, match="strengths"):
            scorer.losses(ALL)
    assert all(a is b for a, b in zip(blocks, model.model.layers, strict=True))


@pytest.mark.parametrize("kind", MAIN)
def test_a_change_attached_below_is_part_of_the_stored_states(lend: Any, kind: str) -> None:
    model, pairs = lend(kind), encoded_pairs()
    below, here = noisy(model, "vector", layer=0, seed=4), noisy(model, layer=2)
    with below.attach(model, 2.0), here.attach(model, 1.0) as handle, torch.no_grad():
        reused = _both(PairScorer(model, pairs, handle).losses(ALL))
        assert_close(reused, _both(PairScorer(model, pairs, handle, reuse="nothing").losses(ALL)))


@pytest.mark.parametrize("kind", MAIN)
def test_bfloat16_losses_are_summed_in_float32(kind: str) -> None:
    """Per-token losses are float32; the model's own rounding, 8 bits in four blocks, is what remains."""
    model, pairs = tiny_model(kind, dtype=torch.bfloat16), encoded_pairs()
    exact = tiny_model(kind)
    with torch.no_grad():
        expected = _both(PairScorer(exact, pairs).losses(ALL))
        for packed in (True, False):
            for reuse in REUSE:
                with _resting(model, 2) as handle:
                    losses = PairScorer(model, pairs, handle, reuse=reuse, packed=packed).losses(ALL)
                assert losses.matching.dtype == torch.float32
                assert_close(_both(losses), expected, 0.02)


# --- the gradient -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_gradients_of_every_shortcut_are_those_of_autograd(lend: Any, kind: str) -> None:
    """The plain way: full logits, `cross_entropy`, one sequence at a time."""
    model, pairs = lend(kind), encoded_pairs(4)

    def gradients(losses: Any) -> list[torch.Tensor]:
        delta = random_delta(make_delta("local_weight", 48, 32)).requires_grad_(True)
        with attach(model, delta, Site(2), 1.5) as handle:
            losses(handle).backward()
        return [delta.dW.grad, delta.db.grad]

    def plain(handle: Any) -> torch.Tensor:
        total = torch.zeros(())
        for weight, pair in enumerate(pairs, 1):
            for answer, sign in ((pair.matching, 1.0), (pair.not_matching, -0.3)):
                ids, _ = _labelled(pair.prompt, answer)
                out = model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt) - 1 : -1]
                total = total + weight * sign * F.cross_entropy(out, torch.tensor(answer), reduction="sum")
        return total

    expected = gradients(plain)
    for packed in (True, False):
        for reuse in REUSE:

            def ours(handle: Any, packed: bool = packed, reuse: Any = reuse) -> torch.Tensor:
                found = PairScorer(model, pairs, handle, reuse=reuse, packed=packed).losses(torch.arange(4))
                return (torch.arange(1, 5) * (found.matching - 0.3 * found.not_matching)).sum()

            for found, wanted in zip(gradients(ours), expected, strict=True):
                assert_close(found, wanted, 5e-5)  # a sum of signed terms: rounding grows with their cancellation


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_heads_gradient_is_autograds(cap: float | None, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, against finite differences of nothing but autograd; in chunks of one and in one chunk.

    Logits are made as large as the cap, where the slope of `cap * tanh(z / cap)` is far from 1.
    """
    model = tiny_model("gemma2" if cap else "llama")
    head = torch.nn.Linear(32, 260, bias=bias)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    model.set_output_embeddings(head.requires_grad_(False))
    model.config.final_logit_softcapping = cap
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(7, 32, generator=generator, requires_grad=True)
    targets = torch.randint(0, 260, (7,), generator=generator)
    weight = torch.linspace(-1, 2, 7)

    exact = hidden.detach().double().requires_grad_(True)
    logits = exact @ head.weight.double().T + (head.bias.double() if bias else 0)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    expected = -logits.log_softmax(-1)[torch.arange(7), targets]
    (expected * weight).sum().backward()
    for chunk in (1, 100):
        parts = [slice(i, i + chunk) for i in range(0, 7, chunk)]
        monkeypatch.setattr("easyedit_split.scoring.token_losses._chunks", lambda hidden, head, parts=parts: parts)
        hidden.grad = None
        found = token_losses(model, hidden, targets)
        (found * weight).sum().backward()
        assert_close(found.detach(), expected.detach())
        assert_close(hidden.grad, exact.grad)
        with torch.no_grad():
            assert_close(token_losses(model, hidden, targets), expected.detach())


def test_a_change_over_the_head_itself_keeps_its_gradient(lend: Any) -> None:
    """A hook at the vocabulary projection is part of the loss, so it is part of the gradient."""
    model = lend("llama")
    hook = model.lm_head.register_forward_hook(lambda m, a, out: 2.0 * out)
    try:
        hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        targets = torch.tensor([1, 2, 3])
        (expected,) = torch.autograd.grad(
            F.cross_entropy(2.0 * (hidden @ model.lm_head.weight.T), targets, reduction="sum"), hidden
        )
        (found,) = torch.autograd.grad(token_losses(model, hidden, targets).sum(), hidden)
        assert_close(found, expected)
    finally:
        hook.remove()


# --- the layout ---------------------------------------------------------------------------------------------------


def test_a_packed_row_by_hand() -> None:
    """Prompt 1 2 3, answers 4 5 6 and 7 8: the last token of each is predicted and never an input."""
    pair = EncodedPair((1, 2, 3), (4, 5, 6), (7, 8))
    batch = lay_out([pair])
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 2]]
    assert batch.cols.tolist() == [2, 3, 4, 2, 5]
    assert batch.targets.tolist() == [4, 5, 6, 7, 8]
    assert batch.owner.tolist() == [0, 0, 0, 1, 1]
    assert row_length(pair) == 6
    steered = batch.steered(Positions("answer"))
    assert steered is not None and steered.tolist() == [[False, False, True, True, True, True]]
    steered = batch.steered(Positions("after_prefix", 1))
    assert steered is not None and steered.tolist() == [[False, True, True, True, True, True]]
    assert batch.steered(Positions("all")) is None
    visible = batch.attention_mask(type("C", (), {"sliding_window": None})(), torch.float32)[0, 0] == 0
    assert visible.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]


def test_separate_rows_by_hand() -> None:
    batch = lay_out([EncodedPair((1, 2), (3, 4), (5,))], packed=False, pad_id=9)
    assert batch.tokens.tolist() == [[1, 2, 3], [1, 2, 9]]
    assert batch.segments.tolist() == [[0, 0, 1], [0, 0, -1]]
    assert (batch.rows.tolist(), batch.cols.tolist()) == ([0, 0, 1], [1, 2, 1])
    assert batch.rows_per_pair == 2


@pytest.mark.parametrize(
    ("rule", "padding", "past", "expected"),
    [
        (Positions("all"), None, 0, None),
        (Positions("all"), [[0, 1, 1], [1, 1, 1]], 0, [[0, 1, 1], [1, 1, 1]]),
        (Positions("all"), [[0, 1, 1, 1]], 1, [[1, 1, 1]]),
        (Positions("answer"), None, 0, [[0, 0, 1]]),
        (Positions("answer"), [[1, 1, 0], [0, 1, 1]], 0, [[0, 1, 0], [0, 0, 1]]),
        (Positions("after_prefix", 1), None, 0, [[0, 1, 1]]),
        (Positions("after_prefix", 1), None, 1, None),
        (Positions("after_prefix", 4), None, 2, [[0, 0, 1]]),
        (Positions("after_prefix", 1), [[0, 1, 1], [1, 1, 0]], 0, [[0, 0, 1], [0, 1, 0]]),
        (Positions("after_prefix", 2), [[0, 1, 1, 1, 1]], 2, [[0, 1, 1]]),
    ],
)
def test_position_rules_by_hand(rule: Positions, padding: Any, past: int, expected: Any) -> None:
    found = rule.mask(3, None if padding is None else torch.tensor(padding), past)
    assert (found if found is None else found.int().tolist()) == expected


def test_a_decoded_token_is_steered_by_every_rule() -> None:
    for rule in RULES:
        assert rule.mask(1, None, 5) is None
        mask = rule.mask(1, torch.tensor([[0, 1, 1, 1, 1, 1]]), 5)
        assert mask is None or mask.tolist() == [[True]]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown positions 'answers'; did you mean 'answer'"):
        Positions("answers")
    with pytest.raises(ConfigError, match="prefix -1 is negative"):
        Positions("after_prefix", -1)
