"""Laws 6 and 7 for a change of several layers: trained together, on states that were kept below the lowest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from laws import KINDS, MIXED, PLACES, STREAM, TEXT_PAIRS, assert_close, encoded_pairs, joint
from tiny import tiny_model

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import FORMS
from easyedit_split.changes.positions import Positions
from easyedit_split.data.tokens import Encoder
from easyedit_split.errors import ArtifactError, ConfigError, SiteError
from easyedit_split.models.sites import Site
from easyedit_split.scoring.activations import collect_activations
from easyedit_split.scoring.prefix_reuse import shared_prefixes
from easyedit_split.scoring.scorer import PairLosses, PairScorer
from easyedit_split.settings.files import hyperparameters
from easyedit_split.settings.hyperparameters import TrainConfig
from easyedit_split.sweeps.factors import sweep_factors
from easyedit_split.sweeps.run import sweep
from easyedit_split.training import trainer as trainer_module
from easyedit_split.training.diff_mean import diff_mean
from easyedit_split.training.from_settings import train_from
from easyedit_split.training.objectives import RepsObjective, SftObjective, SplitObjective
from easyedit_split.training.trainer import train

SHORT = TrainConfig(n_epochs=2, batch_size=2, lr=0.02, rank=2)
RULES = [Positions("all"), Positions("answer"), Positions("after_prefix", 3)]
ALL = torch.arange(5)
# the lowest block's output is added to, at the first layer too; two sites in the lowest block; the stream
GROUPS = {
    "from layer 0": (Site(0), Site(2)), "three": PLACES, "mixed": MIXED, "stream": STREAM,
    "two in one": (Site(1), Site(1, "self_attn.o_proj"), Site(3)),
}  # fmt: skip


def _both(losses: PairLosses) -> torch.Tensor:
    return torch.stack([losses.matching, losses.not_matching], dim=1).detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("form", FORMS)
def test_scoring_with_prefix_reuse_is_scoring_without_it(lend: Any, kind: str, group: str, form: str) -> None:
    """Law 6: losses and gradients, at one strength a pair and one a layer, by every rule."""
    if form != "vector" and group == "stream":
        pytest.skip("no linear map")
    model, pairs = lend(kind), encoded_pairs()
    m = torch.tensor([1.5, -1.0, 0.0, 0.5, 3.0])
    layers = {site.layer for site in GROUPS[group]}
    for rule in RULES:
        with joint(model, form, GROUPS[group], rule).attach(model, 0.0) as handle:
            handle.delta.requires_grad_(True)
            for strength in (m, {layer: m * (1 - 0.3 * layer) for layer in layers}):
                handle.set_strength(strength)
                found = []
                for reuse in ("nothing", "below", "block"):
                    scorer = PairScorer(model, pairs, handle, reuse=reuse, packed=True)
                    losses = scorer.losses(ALL)
                    handle.delta.zero_grad()
                    losses.matching.sum().backward()
                    found.append([_both(losses), *(p.grad.clone() for p in handle.delta.parameters())])
                for other in found[1:]:
                    for kept, plain in zip(other, found[0], strict=True):
                        torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
            handle.delta.requires_grad_(False)


@pytest.mark.parametrize("group", GROUPS)
def test_blocks_below_the_lowest_run_once_a_pair(lend: Any, group: str) -> None:
    """The lowest block itself too, where the change only adds to its output; the others run at every strength."""
    model, pairs, places = lend("qwen2"), encoded_pairs(), GROUPS[group]
    lowest = min(site.layer for site in places)
    once = lowest + (group not in ("mixed", "two in one"))
    ran = [0, 0, 0, 0]

    def counted(number: int) -> Any:
        def count(module: Any, args: Any, output: Any) -> None:
            ran[number] += len(args[0])

        return count

    with joint(model, "vector", places).attach(model, 1.0) as handle, torch.no_grad():
        scorer = PairScorer(model, pairs, handle)
        hooks = [block.register_forward_hook(counted(i)) for i, block in enumerate(model.model.layers)]
        for m in (1.0, 2.0, -3.0):
            handle.set_strength(m)
            scorer.losses(ALL)
        for hook in hooks:
            hook.remove()
    assert ran == [len(pairs)] * once + [3 * len(pairs)] * (4 - once)
    assert (scorer.store.layer if scorer.store else 0) == once


def _train(model: Any, tokenizer: Any, **options: Any) -> SteeringArtifact:
    return train(model, tokenizer, TEXT_PAIRS, **{"site": PLACES, "form": "lora", "config": SHORT, **options})


def _same(a: SteeringArtifact, b: SteeringArtifact) -> bool:
    return a.id == b.id and all(torch.equal(v, b.delta.tensors()[k]) for k, v in a.delta.tensors().items())


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_same_seed_same_artifact_and_resumed_is_uninterrupted(
    lend: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, form: str
) -> None:
    """Law 7, with dropout, both directions and the ablations of RePS."""
    model, path = lend(kind), tmp_path / "checkpoint"
    options = {
        "form": form, "objective": RepsObjective() if kind == "gemma2" else SplitObjective(),
        "config": replace(SHORT, dropout=0.2, directions=("add", "sub")),
    }  # fmt: skip
    torch.manual_seed(1)
    expected = _train(model, tokenizer, **options)
    torch.manual_seed(2)
    assert _same(_train(model, tokenizer, **options), expected)
    for part in expected.parts:
        assert all(bool(t.abs().max() > 0) for t in part.delta.tensors().values())
    real, calls = trainer_module._Loop._losses, []

    def losses(self: Any, draw: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise _Killed
        return real(self, draw)

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(trainer_module._Loop, "_losses", losses)
        _train(model, tokenizer, checkpoint=path, checkpoint_seconds=0.0, **options)
    with pytest.raises(ArtifactError, match="is of another run"):
        _train(model, tokenizer, checkpoint=path, site=PLACES[:2], **{k: v for k, v in options.items() if k != "site"})
    assert _same(_train(model, tokenizer, checkpoint=path, **options), expected)


def test_one_step_by_hand(tokenizer: Any) -> None:
    """One pair, one step of AdamW on vectors at two layers: their gradients, by plain autograd, clipped together."""
    model, config = tiny_model("llama"), TrainConfig(n_epochs=1, batch_size=1, lr=0.01, steering_factors=(1.5,))
    places = (Site(1), Site(3))
    found = train(
        model, tokenizer, TEXT_PAIRS[:1], site=places, form="vector", objective=SftObjective(), config=config
    )  # fmt: skip
    encoded = Encoder(tokenizer).pairs(TEXT_PAIRS[:1])[0]
    biases = [torch.zeros(32, requires_grad=True) for _ in places]
    hooks = [
        model.model.layers[site.layer].mlp.down_proj.register_forward_hook(lambda m, a, out, b=b: out + 1.5 * b)
        for site, b in zip(places, biases, strict=True)
    ]
    out = model(input_ids=torch.tensor([[*encoded.prompt, *encoded.matching]])).logits[0]
    for hook in hooks:
        hook.remove()
    F.cross_entropy(out[len(encoded.prompt) - 1 : -1], torch.tensor(encoded.matching)).backward()
    norm = max(1.0, float(torch.cat([b.grad for b in biases]).norm()))
    for part, bias in zip(found.parts, biases, strict=True):
        g = bias.grad / norm
        assert_close(part.delta.tensors()["db"], -0.01 * g / (g.abs() + 1e-8), 1e-4)


def test_one_of_several_sites_is_the_one_site_bit_for_bit(lend: Any, tokenizer: Any) -> None:
    model = lend("qwen2")
    one, listed = _train(model, tokenizer, site=Site(2)), _train(model, tokenizer, site=[Site(2)])
    assert _same(one, listed) and listed.site == Site(2) and one.model == listed.model
    with pytest.raises(SiteError, match="layer 2, mlp.down_proj; layer 2, mlp.down_proj: give two or more, each once"):
        _train(model, tokenizer, site=[Site(2), Site(2)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_of_it_is_a_sweep_by_hand(lend: Any, tokenizer: Any, kind: str) -> None:
    """The table's losses are those with every part attached; its factors reach as far as they say."""
    model = lend(kind)
    artifact = _train(model, tokenizer, form="local_weight")
    table = sweep(model, tokenizer, TEXT_PAIRS, artifact, [-2.0, 0.0, 3.0], "sum")
    assert table.header["artifact"]["site"] == "layers 1-3, mlp.down_proj"
    encoded = Encoder(tokenizer).pairs(TEXT_PAIRS)
    for row, m in enumerate(table.factors):
        handles = [part.attach(model, float(m)) for part in artifact.parts]
        with torch.no_grad():
            losses = PairScorer(model, encoded).losses(ALL)
        for handle in handles:
            handle.remove()
        np.testing.assert_allclose(table.loss_pos[row], losses.matching, rtol=1e-5)
    assert len(sweep_factors(model, tokenizer, TEXT_PAIRS, artifact, 9)) == 9
    with shared_prefixes():
        again = sweep(model, tokenizer, TEXT_PAIRS, artifact, [-2.0, 0.0, 3.0], "sum")
    np.testing.assert_allclose(again.loss_pos, table.loss_pos, rtol=1e-6)
    (plain, steered) = collect_activations(model, tokenizer, TEXT_PAIRS, artifact, [0.0, 2.0])
    assert plain.shape == steered.shape and np.abs(steered - plain).max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_diff_mean_of_several_layers_is_that_of_each(lend: Any, tokenizer: Any, kind: str) -> None:
    model = lend(kind)
    found = diff_mean(model, tokenizer, TEXT_PAIRS, layer=[2, 1])
    for part, layer in zip(found.parts, (1, 2), strict=True):
        alone = diff_mean(model, tokenizer, TEXT_PAIRS, layer=layer)
        assert torch.equal(part.delta.tensors()["db"], alone.delta.tensors()["db"]) and part.site == alone.site
    assert diff_mean(model, tokenizer, TEXT_PAIRS, layer=[1]).id == diff_mean(model, tokenizer, TEXT_PAIRS, layer=1).id


def test_joint_says_whether_layers_are_one_change(lend: Any, tokenizer: Any, tmp_path: Path) -> None:
    """`layers` alone means what it meant: each layer its own artifact."""
    model = lend("qwen2")
    values = {"layers": [1, 3], "intervention_method": "lora", "n_epochs": 1, "batch_size": 5}
    apart = list(train_from(hyperparameters(values), model, tokenizer, TEXT_PAIRS, tmp_path))
    assert [(name, str(a.site)) for name, a in apart] == [
        ("1", "layer 1, mlp.down_proj"), ("3", "layer 3, mlp.down_proj"),
    ]  # fmt: skip
    ((name, together),) = train_from(hyperparameters({**values, "joint": True}), model, tokenizer, TEXT_PAIRS, tmp_path)
    assert (name, str(together.site)) == ("1_3", "layers 1 and 3, mlp.down_proj")
    assert not list(tmp_path.glob(".*.checkpoint"))
    assert not torch.equal(together.parts[0].delta.tensors()["A"], together.parts[1].delta.tensors()["A"])
    ((_, mean),) = train_from(
        hyperparameters({"alg_name": "unified_diffmean", "layers": [1, 2], "joint": True}), model, tokenizer, TEXT_PAIRS
    )
    assert str(mean.site) == "layers 1-2, residual"
    ((_, one),) = train_from(hyperparameters({**values, "layers": [3], "joint": True}), model, tokenizer, TEXT_PAIRS)
    assert one.id == apart[1][1].id
    with pytest.raises(ConfigError, match="no layer named"):
        list(train_from(hyperparameters({**values, "layers": [], "joint": True}), model, tokenizer, TEXT_PAIRS))
    with pytest.raises(ConfigError, match="did you mean 'joint'"):
        hyperparameters({"jointly": True})
