"""The strength that a change keeps: used where none is said, and only for the change it was found for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import logits, noisy
from tiny import token_batch

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.calibration import Calibration
from easyedit_split.errors import ArtifactError, ConfigError
from easyedit_split.storage.files import read_tensors, write_tensors

KEPT = Calibration(
    m1=2.5, m2=2.5, budget=1.0, swept=(-6.0, 6.0), reliable=True, reason="Preference is highest there.",
    reduction="sum", date="2026-01-02", interval=(2.25, 2.75), band=(-1.0, 3.0), pairs=100, pairs_sha256="ab" * 32,
    model="0123456789abcdef",
)  # fmt: skip
FORMS = ("vector", "lora", "local_weight")


def test_it_goes_through_json() -> None:
    assert Calibration.from_json(json.loads(json.dumps(KEPT.as_json()))) == KEPT
    least = replace(KEPT, interval=None, band=None)
    assert Calibration.from_json({**least.as_json(), "of a later version": 1}) == least


@pytest.mark.parametrize("form", FORMS)
def test_it_is_saved_and_read_back_and_the_change_is_the_same(lend: Any, tmp_path: Path, form: str) -> None:
    plain = noisy(lend("qwen2"), form)
    kept = replace(plain, calibration=KEPT)
    assert SteeringArtifact.load(kept.save(tmp_path)).calibration == KEPT
    assert kept.id == plain.id
    assert SteeringArtifact.load(plain.save(tmp_path)).calibration is None  # a file of an earlier version has none


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_strength_where_none_is_said(lend: Any, form: str) -> None:
    model, ids = lend("llama"), token_batch()
    artifact = replace(noisy(model, form), calibration=KEPT)
    with artifact.attach(model, 2.5):
        asked = logits(model, ids)
    said = (
        r"no strength given: m = 2.5 \[2.25, 2.75\], found for at most 1 nat of utility \(100 pairs, sum, 2026-01-02\)"
    )
    with pytest.warns(UserWarning, match=said), artifact.attach(model) as handle:
        assert (handle.strength.m1, handle.strength.m2) == (2.5, 2.5)
        assert torch.equal(logits(model, ids), asked)
    with artifact.attach(model, m1=1.0) as handle:  # one of the two says: the other is 0, as ever
        assert (handle.strength.m1, handle.strength.m2) == (1.0, 0.0)


def test_two_strengths_are_kept_apart(lend: Any) -> None:
    model = lend("gpt2")
    artifact = replace(noisy(model), calibration=replace(KEPT, m1=1.0, m2=0.5))
    with pytest.warns(UserWarning, match="m1 = 1, m2 = 0.5"), artifact.attach(model) as handle:
        assert (handle.strength.m1, handle.strength.m2) == (1.0, 0.5)
    with pytest.raises(ConfigError, match="two strengths"):
        _ = artifact.kept_strength().m


def test_merge_uses_it_too(lend: Any) -> None:
    model, ids = lend("gpt2"), token_batch()
    artifact = replace(noisy(model), calibration=KEPT)
    with artifact.attach(model, 2.5):
        hooked = logits(model, ids)
    with pytest.warns(UserWarning, match="no strength given: m = 2.5"):
        edit = artifact.merge(model)
    merged = logits(model, ids)
    edit.undo()
    assert torch.allclose(merged, hooked, rtol=1e-4, atol=1e-4)


def test_without_one_m_is_asked_for(lend: Any) -> None:
    model = lend("qwen2")
    for act in (noisy(model).attach, noisy(model).merge):
        with pytest.raises(ConfigError, match="no strength given, and the change keeps none: pass m"):
            act(model)


def test_an_unreliable_one_is_not_used_unseen(lend: Any) -> None:
    model = lend("qwen2")
    artifact = replace(noisy(model), calibration=replace(KEPT, reliable=False, reason="The fit is poor."))
    with pytest.raises(ConfigError, match=r"not reliable: pass m \(The fit is poor.\)"):
        artifact.attach(model)


def test_another_change_or_another_model_does_not_keep_it(lend: Any) -> None:
    model = lend("qwen2")
    artifact = replace(noisy(model), calibration=KEPT)
    for other in (artifact.scaled(2.0), artifact + artifact, artifact.for_any_model()):
        assert other.calibration is None
    with pytest.raises(ConfigError, match="keeps none"):
        artifact.attach(model, any_model=True)


@pytest.mark.parametrize(
    "wrong",
    [{"m1": float("nan")}, {"m2": "2"}, {"budget": True}, {"swept": None}, {"interval": (1.0,)}, {"band": (0.0, "x")},
     {"reliable": 1}, {"pairs": 2.5}, {"reason": None}],
)  # fmt: skip
def test_a_broken_one_is_refused(lend: Any, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="of a calibration is"):
        replace(KEPT, **wrong)
    path = replace(noisy(lend("qwen2")), calibration=KEPT).save(tmp_path)
    tensors, header = read_tensors(path)
    broken = {k: list(v) if isinstance(v, tuple) else v for k, v in wrong.items()}
    write_tensors(path, tensors, {**header, "calibration": {**header["calibration"], **broken}})
    with pytest.raises(ArtifactError, match="is broken"):
        SteeringArtifact.load(path)
    write_tensors(path, tensors, {**header, "calibration": [1]})
    with pytest.raises(ArtifactError, match="is broken"):
        SteeringArtifact.load(path)
