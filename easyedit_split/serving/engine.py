"""What the plugin does in vLLM's engine and its workers: dials in the model, strengths of a step, hashes of prefixes.

Each function here makes a replacement for one of vLLM's own, `before` (see `internals`).
"""

from __future__ import annotations

from typing import Any

from . import internals
from .catalogue import catalogue_of
from .dial import ATTRIBUTE
from .request import RESOLVED, is_asked

# the model


def load(before: Any) -> Any:
    def load_model(self: Any, vllm_config: Any, model_config: Any, *args: Any, **kwargs: Any) -> Any:
        from .splice import splice

        if catalogue_of(vllm_config) is not None and vllm_config.use_v2_model_runner:
            _hang_into_second_runner()
        model = before(self, vllm_config, model_config, *args, **kwargs)
        splice(model, vllm_config, model_config)
        return model

    return load_model


def _hang_into_second_runner() -> None:
    internals.check_hooks(internals.SECOND_RUNNER)
    internals.ADD_V2.wrap(add_v2)
    internals.REMOVE_V2.wrap(remove_v2)
    internals.STEP_V2.wrap(step_v2)


# a request


def engine(before: Any) -> Any:
    def preprocess_add_request(self: Any, request: Any) -> Any:
        params = request.sampling_params
        if (
            params is not None
            and params.extra_args
            and any(map(is_asked, params.extra_args))
            and _changes(params) is None
        ):
            raise ValueError("a request asks for steering and was not checked: it came past vLLM's input processor")
        return before(self, request)

    return preprocess_add_request


def _changes(params: Any) -> Any:
    """The changes of a request, as `Steered.packed` wrote them; None where it is not steered."""
    return params.extra_args.get(RESOLVED) if params is not None and params.extra_args else None


# the prefix cache: a block's hash holds the strengths of every change that acts on it or on tokens before it


def prefix(before: Any) -> Any:
    def keys(request: Any, start_token_idx: int, end_token_idx: int) -> Any:
        found = before(request, start_token_idx, end_token_idx)
        steered = [
            ("steer", f"{digest}:{m1.hex()}:{m2.hex()}:{start}")
            for _, digest, m1, m2, start in _changes(request.sampling_params) or ()
            if start < end_token_idx
        ]
        return [*found, *sorted(steered)]

    return keys


# a step: the strength of each token, before the model runs


def step(before: Any) -> Any:
    def _prepare_inputs(self: Any, scheduler_output: Any, num_scheduled_tokens: Any) -> Any:
        found = before(self, scheduler_output, num_scheduled_tokens)
        steering = _steering(self)
        if steering is not None:
            batch, requests = self.input_batch, self.requests
            positions = batch.num_computed_tokens_cpu[: batch.num_reqs].tolist()
            changes = [_changes(requests[name].sampling_params) for name in batch.req_ids]
            steering.strengths.fill(zip(changes, positions, num_scheduled_tokens.tolist(), strict=True))
        return found

    return _prepare_inputs


def forward(before: Any) -> Any:
    def _model_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = before(self, *args, **kwargs)
        steering = _steering(self)
        if steering is not None:
            steering.check_visited()
        return found

    return _model_forward


def _steering(runner: Any) -> Any:
    """The `Steering` of a runner's model; None where nothing is served."""
    found = getattr(runner.get_model(), ATTRIBUTE, None)
    if found is None and catalogue_of(runner.vllm_config) is not None:
        raise RuntimeError(
            "this way of loading a model in vLLM is not supported with artifacts: choose another load format"
        )
    return found


def add_v2(before: Any) -> Any:
    def add_requests(self: Any, scheduler_output: Any) -> Any:
        found = before(self, scheduler_output)
        for new in scheduler_output.scheduled_new_reqs:
            changes = _changes(new.sampling_params)
            if changes:
                _of_runner(self)[new.req_id] = changes
        return found

    return add_requests


def remove_v2(before: Any) -> Any:
    def _remove_request(self: Any, req_id: str) -> Any:
        _of_runner(self).pop(req_id, None)
        return before(self, req_id)

    return _remove_request


def step_v2(before: Any) -> Any:
    def prepare_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = before(self, *args, **kwargs)
        steering = _steering(self)
        if steering is not None:
            count = len(batch.req_ids)
            changes = [_of_runner(self).get(name) for name in batch.req_ids]
            positions = batch.num_computed_tokens_np[:count].tolist()
            steering.strengths.fill(zip(changes, positions, batch.num_scheduled_tokens[:count].tolist(), strict=True))
        return batch

    return prepare_inputs


def _of_runner(runner: Any) -> dict[str, Any]:
    return runner.__dict__.setdefault("_easyedit_split", {})
