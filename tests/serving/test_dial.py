"""The arithmetic of a dial: both ways of computing it, and the strengths of a step."""

from __future__ import annotations

import pytest
import torch

from easyedit_split.serving.dial import Added, Dial
from easyedit_split.serving.strengths import Strengths

TOKENS, D_IN, D_OUT = 11, 5, 7
SPANS = [
    ([[0, "", 2.0, -1.0, 0]], 0, 4),  # a whole prompt
    (None, 7, 1),  # not steered
    ([[0, "", 0.5, 0.0, 6], [1, "", 0.0, 3.0, 0]], 5, 3),  # the first of its tokens lies before its start
    ([[1, "", 1.0, 1.0, 40]], 2, 2),  # not there yet
]


def _strengths(device: str = "cpu") -> Strengths:
    return Strengths(2, 32, torch.device(device))


def _parts(dtype: torch.dtype) -> list[Added]:
    g = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return [
        Added(0, slice(None), {"dW": make(D_OUT, D_IN).to(dtype), "db": make(D_OUT)}),
        Added(1, slice(2, 5), {"A": make(2, D_IN).to(dtype), "B": make(3, 2).to(dtype), "db": make(3)}),
    ]


def test_a_step_s_strengths_are_those_of_its_requests() -> None:
    strengths = _strengths()
    for _ in range(2):  # what an earlier step left is gone
        strengths.fill([([[0, "", 9.0, 9.0, 0], [1, "", 9.0, 9.0, 0]], 0, 20)])
        strengths.fill(SPANS)
    want = torch.zeros(2, 2, 32)
    want[0, 0, :4], want[0, 1, :4] = 2.0, -1.0
    want[0, 0, 6:8] = 0.5
    want[1, 1, 5:8] = 3.0
    assert torch.equal(strengths.values, want) and strengths.tokens == 10
    steered = {k: v.tolist() for k, v in strengths.steered.items() if v is not None}
    assert steered == {0: [0, 1, 2, 3, 6, 7], 1: [5, 6, 7]}
    strengths.fill([(None, 0, 3)])
    assert not strengths.steered and not strengths.values.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_add_what_the_equation_says(dtype: torch.dtype) -> None:
    strengths, parts = _strengths(), _parts(dtype)
    strengths.fill(SPANS)
    dial = Dial(strengths, parts)
    x, out = torch.randn(TOKENS, D_IN).to(dtype), torch.randn(TOKENS, D_OUT).to(dtype)  # one row of padding
    want = out.float().clone()
    for part in parts:
        m1, m2 = strengths.values[part.artifact, :, :TOKENS, None]
        t = {k: v.float() for k, v in part.tensors.items()}
        weight = t["dW"] if "dW" in t else t["B"] @ t["A"]
        want[:, part.rows] += m1 * (x.float() @ weight.T) + m2 * t["db"]
    steered, everywhere = out.clone(), out.clone()
    dial.turn_steered(steered, x)
    dial.turn_all(everywhere, x)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    for found in (steered, everywhere):
        assert torch.allclose(found.float(), want, atol=tolerance)
    untouched = [4, 8, 9, 10]
    assert torch.equal(steered[untouched], out[untouched]) and torch.equal(everywhere[untouched], out[untouched])


def test_a_trial_run_with_fewer_tokens_is_left_alone() -> None:
    strengths = _strengths()
    strengths.fill(SPANS)
    out = torch.randn(3, D_OUT)
    after = out.clone()
    Dial(strengths, _parts(torch.float32)).turn_steered(after, torch.randn(3, D_IN))
    assert torch.equal(after, out)


def test_the_operator_is_sound() -> None:
    strengths = _strengths()
    strengths.fill(SPANS)
    dial = Dial(strengths, _parts(torch.float32))
    arguments = (torch.randn(TOKENS, D_OUT), torch.randn(TOKENS, D_IN), dial.number)
    torch.library.opcheck(torch.ops.easyedit_split.steer.default, arguments)
