"""Laws 1 to 5, 8 and 9 for one change at several sites: it is its parts, all at once, on one dial."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import KINDS, MIXED, PLACES, STREAM, assert_close, joint, logits, noisy, one_by_one
from tiny import tiny_model, token_batch

from easyedit_split.changes.arithmetic import cosine, projection
from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import FORMS, Joint, from_tensors, parts_of
from easyedit_split.changes.positions import Positions
from easyedit_split.errors import ArtifactError, ConfigError, NotMergeableError, SiteError
from easyedit_split.models.identity import describe_model, identify_model
from easyedit_split.models.sites import Site, Sites, sites_of
from easyedit_split.storage.files import read_tensors, write_tensors


@pytest.mark.parametrize("form", FORMS)
def test_a_joint_change_is_the_change_of_the_direct_sum(lend: Any, form: str) -> None:
    """Law 1, with inputs of different widths."""
    delta = joint(lend("qwen2"), form, MIXED).delta
    x = torch.randn(3, 5, delta.d_in)
    weight, bias = delta.weight(), delta.bias_term()
    expected = (0 if weight is None else x @ weight.T) + (0 if bias is None else bias)
    assert_close(delta(x), expected.expand(3, 5, delta.d_out))
    back = from_tensors(form, delta.tensors())
    assert all(torch.equal(t, back.tensors()[name]) for name, t in delta.tensors().items())
    assert [part.form for part in parts_of(back)] == [form] * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("form", "places"), [(f, p) for f in FORMS for p in (PLACES, MIXED)] + [("vector", STREAM)],
)  # fmt: skip
def test_hooked_is_its_parts_is_merged_is_reloaded(
    lend: Any, tmp_path: Path, kind: str, form: str, places: tuple[Site, ...]
) -> None:
    """Law 2."""
    model, ids = lend(kind), token_batch()
    artifact = joint(model, form, places)
    plain = logits(model, ids)
    with artifact.attach(model, 1.5):
        hooked = logits(model, ids)
    assert torch.equal(one_by_one(model, artifact, ids, [1.5] * len(places)), hooked)
    for left_out in range(len(places)):  # every part matters
        strengths = [0.0 if i == left_out else 1.5 for i in range(len(places))]
        assert (one_by_one(model, artifact, ids, strengths) - hooked).abs().max() > 1e-4 * plain.abs().max()
    path = artifact.save(tmp_path)
    for where in (tmp_path, path):
        with SteeringArtifact.load(where).attach(model, 1.5):
            assert torch.equal(logits(model, ids), hooked)
    if kind == "gemma2" and places is STREAM:
        with pytest.raises(NotMergeableError, match="behind a norm"):
            artifact.merge(model, 1.5)
        return
    merged = artifact.merge(model, 1.5)
    assert_close(logits(model, ids), hooked)
    merged.undo()
    merged.undo()
    assert torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_m_zero_is_the_plain_model_and_nothing_stays(lend: Any, kind: str, form: str) -> None:
    """Law 3."""
    model, ids = lend(kind), token_batch()
    artifact, plain = joint(model, form), logits(model, ids)
    with artifact.attach(model, 0.0) as handle:
        assert torch.equal(logits(model, ids), plain)
        handle.set_strength(torch.zeros(3))
        assert torch.equal(logits(model, ids), plain)
        handle.set_strength({1: 0.0, 2: 0, 3: torch.zeros(3)})
        assert torch.equal(logits(model, ids), plain)
        handle.set_strength(2.0)
        with handle.silenced():
            assert torch.equal(logits(model, ids), plain)
        assert not torch.equal(logits(model, ids), plain)
    assert torch.equal(logits(model, ids), plain)
    with pytest.raises(RuntimeError, match="inside"), artifact.attach(model, 3.0):
        raise RuntimeError("inside")
    assert torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_one_strength_a_row_and_one_a_layer(lend: Any, kind: str, form: str) -> None:
    """Law 5; and each layer its own, of numbers and of one a row, merged too."""
    model, ids = lend(kind), token_batch()
    artifact, m = joint(model, form), torch.tensor([-2.0, 0.0, 1.5])
    with artifact.attach(model, m) as handle:
        together = logits(model, ids)
        for row in range(3):
            handle.set_strength(float(m[row]))
            assert_close(together[row : row + 1], logits(model, ids[row : row + 1]))
        by_layer = {1: 1.5, 2: -0.5, 3: 0.0}
        handle.set_strength(by_layer)
        hooked = logits(model, ids)
        handle.set_strength({1: m, 2: 0.5, 3: -m})
        by_row = logits(model, ids)
        handle.set_strength(m1={1: 1.0, 2: 2.0, 3: 3.0}, m2=0.7)
        apart = logits(model, ids)
    assert torch.equal(one_by_one(model, artifact, ids, by_layer.values()), hooked)
    assert torch.equal(one_by_one(model, artifact, ids, [m, 0.5, -m]), by_row)
    with ExitStack() as stack:
        for part, m1 in zip(artifact.parts, (1.0, 2.0, 3.0), strict=True):
            stack.enter_context(part.attach(model, m1=m1, m2=0.7))
        assert torch.equal(logits(model, ids), apart)
    merged = artifact.merge(model, by_layer)
    assert_close(logits(model, ids), hooked)
    merged.undo()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [Positions(), Positions("answer"), Positions("after_prefix", 3)], ids=str)
def test_a_padded_batch_is_each_row_alone_and_a_cache_is_one_forward(lend: Any, kind: str, rule: Positions) -> None:
    """Law 4."""
    model, lengths, new = lend(kind), (5, 9, 20), 5
    ids, mask = token_batch(3, 20), torch.zeros(3, 20, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, -length:] = 1
    artifact, m = joint(model, "local_weight", positions=rule), torch.tensor([1.5, -1.0, 0.5])
    with artifact.attach(model, 1.5):
        together = logits(model, ids, mask)
        for row, length in enumerate(lengths):
            assert_close(together[row, -length:], logits(model, ids[row : row + 1, -length:])[0])
    with artifact.attach(model, m):
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False, output_logits=True,
            return_dict_in_generate=True, pad_token_id=259,
        )  # fmt: skip
    steps = torch.stack(out.logits, dim=1)
    with artifact.attach(model, 0.0) as handle:
        for row, length in enumerate(lengths):
            first = {"all": 0, "answer": length - 1, "after_prefix": 3}[rule.rule]
            handle.set_strength(m[row])
            with handle.steer_only((torch.arange(length + new) >= first)[None]):
                full = logits(model, out.sequences[row : row + 1, -(length + new) :])
            assert_close(steps[row], full[0, length - 1 : -1])


@pytest.mark.parametrize("kind", KINDS)
def test_attachments_stack_in_either_order(lend: Any, kind: str) -> None:
    """Law 8: at the same modules, and with a change of one site."""
    model, ids = lend(kind), token_batch()
    first = joint(model, "local_weight")
    for second in (joint(model, "lora", seed=7), noisy(model, "vector", layer=2, positions="answer", seed=9)):
        with first.attach(model, 1.2), second.attach(model, -0.8):
            one = logits(model, ids)
        with second.attach(model, -0.8), first.attach(model, 1.2):
            assert_close(logits(model, ids), one)


@pytest.mark.parametrize("kind", KINDS)
def test_db_merges_into_a_bias_or_adds_one_in_each_layer(lend: Any, kind: str) -> None:
    """Law 9, in memory; two changes at one bias undo in order."""
    model = lend(kind)
    artifact = joint(model, "vector")
    modules = [site.module for site in artifact.resolve_all(model)]
    had = [module.bias is not None for module in modules]
    merged = artifact.merge(model, 2.0)
    assert merged.added_bias is not all(had)
    later = artifact.merge(model, 1.0)
    with pytest.raises(NotMergeableError, match="changed after this merge: undo the later change first"):
        merged.undo()
    later.undo()
    merged.undo()
    assert [module.bias is not None for module in modules] == had


def test_a_merge_that_fails_in_its_last_layer_leaves_the_others_as_they_were(lend: Any) -> None:
    model, ids = lend("qwen2"), token_batch()
    plain = logits(model, ids)
    artifact = joint(model, "local_weight")
    with torch.no_grad():
        artifact.parts[-1].delta.dW.fill_(1e38)
    with pytest.raises(NotMergeableError, match="overflows"):
        artifact.merge(model, 100.0)
    assert torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_bfloat16_model_hooked_is_near_the_merged_one(kind: str, form: str) -> None:
    model, ids = tiny_model(kind, dtype=torch.bfloat16), token_batch()
    artifact, plain = joint(model, form), logits(model, ids)
    with artifact.attach(model, 1.5) as handle:
        hooked = logits(model, ids)
        handle.set_strength(torch.full((3,), 1.5))
        assert_close(logits(model, ids), hooked, 2**-5)
    assert hooked.dtype == torch.bfloat16 and {p.dtype for p in artifact.delta.parameters()} == {torch.float32}
    assert torch.equal(one_by_one(model, artifact, ids, [1.5] * 3), hooked)
    merged = artifact.merge(model, 1.5)
    assert_close(logits(model, ids), hooked, 2**-4)
    merged.undo()
    assert torch.equal(logits(model, ids), plain)


# --- on disk ----------------------------------------------------------------------------------------------------------


def test_the_file_says_every_site(lend: Any, tmp_path: Path) -> None:
    model = lend("qwen2")
    artifact = replace(joint(model, "vector"), model=identify_model(model, 1, 2, 3))
    path = artifact.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "layer_1-3.safetensors", "layer_1.pt", "layer_2.pt", "layer_3.pt",
    ]  # fmt: skip
    back = SteeringArtifact.load(path)
    assert (back.site, back.id, back.model, back.form) == (artifact.site, artifact.id, artifact.model, "vector")
    for part in artifact.parts:
        plain = torch.load(tmp_path / f"layer_{part.site.layer}.pt", weights_only=True)
        assert torch.equal(plain, part.delta.bias_term())
    tensors, header = read_tensors(path)
    assert (header["format_version"], header["place"]) == (2, "layers 1-3, mlp.down_proj") and "site" not in header
    assert header["sites"] == [{"layer": k, "component": "mlp.down_proj"} for k in (1, 2, 3)]
    for wrong in (
        {"sites": header["sites"][:2]}, {"sites": header["sites"][::-1]}, {"sites": [header["sites"][0]] * 3},
        {"sites": []}, {"sites": 3}, {"sites": [{"layer": "1"}] * 3}, {"format_version": 1},
    ):  # fmt: skip
        write_tensors(path, tensors, {**header, **wrong})
        with pytest.raises(ArtifactError, match="is broken"):
            SteeringArtifact.load(path)
    with pytest.raises(ArtifactError, match="is broken"):
        write_tensors(path, {f"x{k}": v for k, v in tensors.items()}, header)
        SteeringArtifact.load(path)
    write_tensors(path, {k.replace("parts.1", "parts.7"): v for k, v in tensors.items()}, header)
    with pytest.raises(ArtifactError, match="its parts are numbered 0, 2, 7, not from 0 on"):
        SteeringArtifact.load(path)


def test_a_change_of_one_site_is_kept_as_before(lend: Any, tmp_path: Path) -> None:
    """The header's keys, its version and the id, which names sweeps, do not know of several sites."""
    artifact = noisy(lend("qwen2"), "lora")
    assert SteeringArtifact.joined([artifact]) is artifact and artifact.parts == (artifact,)
    tensors, header = read_tensors(artifact.save(tmp_path))
    assert sorted(tensors) == ["A", "B"] and header["format_version"] == 1
    assert sorted(header) == ["form", "format_version", "id", "model", "origin", "positions", "site"]
    fixed = SteeringArtifact(from_tensors("vector", {"db": torch.arange(4.0)}), Site(14, "residual"))
    assert fixed.id == "1dd8a9515a34eba0"


def test_places_by_their_names() -> None:
    several = sites_of([Site(16), Site(12), Site(14), Site(13)])
    assert (str(several), several.layers) == ("layers 12-14 and 16, mlp.down_proj", "12-14_16")
    assert several.component == "mlp.down_proj"
    mixed = sites_of([Site(3, "residual"), Site(1), Site(3)])
    assert (str(mixed), mixed.layers) == ("layers 1 and 3, mlp.down_proj; layer 3, residual", "1_3")
    assert sites_of([Site(3)]) == Site(3) and isinstance(mixed, Sites)
    with pytest.raises(SiteError, match="several components, and here is room for one"):
        _ = mixed.component
    with pytest.raises(SiteError, match="several places, and here is room for one"):
        _ = several.layer
    for wrong in ([], [Site(1), Site(1)]):
        with pytest.raises(SiteError, match="give two or more, each once, the lowest layer first"):
            sites_of(wrong)
    with pytest.raises(SiteError, match="layer 2, mlp.down_proj; layer 1, mlp.down_proj: give two or more"):
        Sites((Site(2), Site(1)))


# --- arithmetic, and what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_scaled_and_summed(lend: Any, form: str) -> None:
    model, ids = lend("qwen2"), token_batch()
    first, second = joint(model, form), joint(model, form, seed=5)
    with first.attach(model, 1.5):
        expected = logits(model, ids)
    with first.scaled(3.0).attach(model, 0.5):
        assert_close(logits(model, ids), expected)
    with first.attach(model, 1.0), second.attach(model, 1.0):
        both = logits(model, ids)
    with (first + second).attach(model, 1.0):
        assert_close(logits(model, ids), both)
    assert cosine(first, first.scaled(-2.0)) == pytest.approx(-1.0)
    assert projection(first.scaled(3.0), first) == pytest.approx(3.0)
    assert abs(cosine(first, second)) < 0.5


def test_what_cannot_be_joined_or_asked_is_said(lend: Any, tmp_path: Path) -> None:
    model = lend("qwen2")
    one, artifact = noisy(model, "lora"), joint(model)
    for wrong, error, message in (
        ([], ConfigError, "no change to join"),
        ([one, one], SiteError, "give two or more, each once"),
        ([one, noisy(model, "vector", layer=2)], ConfigError, "2 changes of form lora and vector"),
        ([one, noisy(model, "lora", layer=2, positions="answer")], ConfigError, "steer positions"),
        ([one, noisy(lend("llama"), "lora", layer=2)], ConfigError, "have not the same model"),
    ):
        with pytest.raises(error, match=message):
            SteeringArtifact.joined(wrong)
    for strength, message in (
        ({1: 1.0, 2: 1.0}, "strengths for the layers 1, 2, but the change has 1, 2, 3: give one for each"),
        ({1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0}, "1, 2, 3, 4, but the change has 1, 2, 3"),
        ({}, "layers none, but"),
        ({"1": 1.0}, "has the key '1': give a strength a layer"),
        ({1: 1.0, 2: float("nan"), 3: 1.0}, "m1 of layer 2 = nan is not finite"),
    ):
        with pytest.raises(ConfigError, match=message):
            artifact.attach(model, strength)
        with pytest.raises(ConfigError, match=message):
            artifact.merge(model, strength)
    with pytest.raises(ConfigError, match="merging takes one number"):
        artifact.merge(model, torch.ones(3))
    with pytest.raises(SiteError, match="layers 1-3, mlp.down_proj are several places"):
        artifact.resolve(model)
    with pytest.raises(ConfigError, match="have not the same site"):
        _ = artifact + one
    with pytest.raises(SiteError, match="layer 9 is out of range"):
        replace(artifact, site=Sites((Site(1), Site(2), Site(9)))).attach(model, 1.0)
    with pytest.raises(ConfigError, match="1 changes of form lora: join two or more of one"):
        Joint([one.delta])
    assert {s["architecture"] for s in (p.model for p in artifact.parts)} == {describe_model(model)["architecture"]}


def test_a_join_of_joined_changes_and_its_origin(lend: Any) -> None:
    model = lend("qwen2")
    low = replace(joint(model, places=(Site(1), Site(2))), origin={"chat": True, "lr": 1})
    high = replace(noisy(model, "lora", layer=3), origin={"chat": True, "lr": 2})
    whole = SteeringArtifact.joined([high, low])
    assert [s.layer for s in whole.site.sites] == [1, 2, 3]
    assert whole.origin["chat"] is True and [o["lr"] for o in whole.origin["joined"]] == [1, 1, 2]
    assert low.parts[0].origin == {"chat": True, "lr": 1, "part_of": "layers 1-2, mlp.down_proj"}
    assert SteeringArtifact.joined(low.parts).id == low.id and SteeringArtifact.joined(low.parts).origin == low.origin
