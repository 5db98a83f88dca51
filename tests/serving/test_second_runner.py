"""The hooks of vLLM's second runner, which runs on CUDA only: their order of calls, on stand-ins of its data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from easyedit_split.serving.dial import ATTRIBUTE, Steering
from easyedit_split.serving.engine import add_v2, remove_v2, step_v2
from easyedit_split.serving.strengths import Strengths


def _new(name: str, changes: Any) -> Any:
    extra = None if changes is None else {"steer": "…", "steer.resolved": changes}
    return SimpleNamespace(req_id=name, sampling_params=SimpleNamespace(extra_args=extra))


def _step(runner: Any, batch: dict[str, tuple[int, int]]) -> torch.Tensor:
    """The m2 of artifact 0 in a step of requests: name -> (first position, tokens); one request of padding."""
    positions, counts = (np.array([v[k] for v in batch.values()] + [7]) for k in range(2))
    made = SimpleNamespace(req_ids=list(batch), num_computed_tokens_np=positions, num_scheduled_tokens=counts)
    step_v2(lambda self: made)(runner)
    return runner.get_model().easyedit_split_steering.strengths.values[0, 1, :6]


def test_requests_come_are_put_off_and_go() -> None:
    strengths = Strengths(1, 16, torch.device("cpu"))
    model = SimpleNamespace(**{ATTRIBUTE: Steering(strengths, [])})
    runner = SimpleNamespace(get_model=lambda: model)
    remove = remove_v2(lambda self, name: True)

    def add_requests(self: Any, output: Any) -> None:
        for new in output.scheduled_new_reqs:
            remove(self, new.req_id)  # as vLLM does

    add = add_v2(add_requests)
    first, second = _new("a", [[0, "", 0.0, 2.0, 0]]), _new("b", [[0, "", 0.0, 3.0, 4]])
    add(runner, SimpleNamespace(scheduled_new_reqs=[first, second, _new("c", None)]))
    assert _step(runner, {"b": (3, 2), "c": (0, 1), "a": (0, 2)}).tolist() == [0, 3, 0, 2, 2, 0]
    assert _step(runner, {"a": (2, 1), "b": (5, 1)}).tolist() == [2, 3, 0, 0, 0, 0]
    remove(runner, "b")
    assert _step(runner, {"a": (3, 1), "b": (6, 1)}).tolist() == [2, 0, 0, 0, 0, 0]
    add(runner, SimpleNamespace(scheduled_new_reqs=[second]))  # computed again from its first token
    assert _step(runner, {"b": (0, 6)}).tolist() == [0, 0, 0, 0, 3, 3]
