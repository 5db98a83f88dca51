"""The plugin: what vLLM calls in each of its processes (entry point `vllm.general_plugins`).

Nothing is steered, and nothing refused, in an engine without a catalogue in its `additional_config`.
"""

from __future__ import annotations

import logging
from typing import Any

from ..errors import ConfigError, SteeringError
from . import internals
from .catalogue import KEY, Catalogue

_LOG = logging.getLogger(__name__)


def register() -> None:
    """Hang into vLLM; any number of times. A vLLM that is unknown is left alone, and refuses to be given artifacts."""
    import vllm

    try:
        internals.check_version(vllm.__version__)
    except ConfigError as error:
        _LOG.warning("%s", error)
        _refuse_artifacts(error)
        return
    internals.LOAD.wrap(_load)
    internals.REQUEST.wrap(_request)
    internals.ENGINE.wrap(_engine)
    internals.PREFIX.wrap(_prefix)
    internals.STEP.wrap(_step)
    internals.FORWARD.wrap(_forward)
    internals.APP.wrap(_app)
    internals.MODELS.wrap(_models)
    internals.MODEL_NAME.wrap(_model_name)
    if all(hook.is_known() for hook in internals.SECOND_RUNNER):
        internals.ADD_V2.wrap(_add_v2)
        internals.REMOVE_V2.wrap(_remove_v2)
        internals.STEP_V2.wrap(_step_v2)


def _refuse_artifacts(error: ConfigError) -> None:
    from vllm.config import VllmConfig

    def make(before: Any) -> Any:
        def __post_init__(self: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self.additional_config, dict) and KEY in self.additional_config:
                raise error
            return before(self, *args, **kwargs)

        return __post_init__

    internals.Hook("vllm.config:VllmConfig.__post_init__", ("self",)).wrap(make)
    del VllmConfig


# the model


def _load(before: Any) -> Any:
    def load_model(self: Any, vllm_config: Any, model_config: Any, *args: Any, **kwargs: Any) -> Any:
        from .splice import splice

        model = before(self, vllm_config, model_config, *args, **kwargs)
        splice(model, vllm_config, model_config)
        return model

    return load_model


# a request, in the process that takes it and in the engine's


def _request(before: Any) -> Any:
    from vllm.exceptions import VLLMValidationError

    from .request import FIELD, RESOLVED, check_fields, is_asked, resolve

    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = before(self, *args, **kwargs)
        params = request.sampling_params
        extra = params.extra_args if params is not None else None
        if not extra or not any(map(is_asked, extra)):
            return request
        catalogue = _catalogue(self.vllm_config)
        try:
            if catalogue is None:
                raise ConfigError(
                    "this server has no artifacts to steer with: start it with some, or ask without steering"
                )
            check_fields(extra)
            if request.resumable:
                raise ConfigError("a request whose prompt grows cannot be steered: send the whole prompt")
            changes = resolve(catalogue, extra.get(FIELD), _prompt_length(request))
        except SteeringError as error:
            raise VLLMValidationError(str(error)) from None
        params.extra_args = {**extra, RESOLVED: [change.packed() for change in changes]}
        return request

    return process_inputs


def _prompt_length(request: Any) -> int:
    return len(request.prompt_token_ids if request.prompt_token_ids is not None else request.prompt_embeds)


def _engine(before: Any) -> Any:
    from .request import is_asked

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
    from .request import RESOLVED

    return params.extra_args.get(RESOLVED) if params is not None and params.extra_args else None


def _catalogue(config: Any) -> Catalogue | None:
    """The engine's catalogue, read once."""
    if not hasattr(config, "_easyedit_split"):
        object.__setattr__(config, "_easyedit_split", Catalogue.of(config.additional_config))
    return config._easyedit_split


# the prefix cache: a block's hash holds the strengths of every change that acts on it or on tokens before it


def _prefix(before: Any) -> Any:
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


def _step(before: Any) -> Any:
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


def _forward(before: Any) -> Any:
    def _model_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = before(self, *args, **kwargs)
        steering = _steering(self)
        if steering is not None:
            steering.check_visited()
        return found

    return _model_forward


def _steering(runner: Any) -> Any:
    """The `Steering` of a runner's model; None where nothing is served."""
    from .splice import ATTRIBUTE

    found = getattr(runner.get_model(), ATTRIBUTE, None)
    if found is None and _catalogue(runner.vllm_config) is not None:
        raise RuntimeError(
            "this way of loading a model in vLLM is not supported with artifacts: choose another load format"
        )
    return found


def _add_v2(before: Any) -> Any:
    def add_requests(self: Any, scheduler_output: Any) -> Any:
        found = before(self, scheduler_output)
        for new in scheduler_output.scheduled_new_reqs:
            changes = _changes(new.sampling_params)
            if changes:
                _of_runner(self)[new.req_id] = changes
        return found

    return add_requests


def _remove_v2(before: Any) -> Any:
    def _remove_request(self: Any, req_id: str) -> Any:
        _of_runner(self).pop(req_id, None)
        return before(self, req_id)

    return _remove_request


def _step_v2(before: Any) -> Any:
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


# the API


def _app(before: Any) -> Any:
    def init_entrypoints_middleware(args: Any, app: Any, supported_tasks: Any) -> Any:
        catalogue = Catalogue.of(getattr(args, "additional_config", None))
        if catalogue is not None:
            from .api import ModelNames

            app.add_middleware(
                ModelNames, catalogue=catalogue
            )  # first, and so behind vLLM's own: keys are checked before
        return before(args, app, supported_tasks)

    return init_entrypoints_middleware


def _models(before: Any) -> Any:
    async def show_available_models(self: Any) -> Any:
        from .api import add_models

        found = await before(self)
        catalogue = _catalogue(self.input_processor.vllm_config)
        return found if catalogue is None else add_models(found, catalogue)

    return show_available_models


def _model_name(before: Any) -> Any:
    def model_name(self: Any, lora_request: Any = None) -> Any:
        from .api import ASKED

        return ASKED.get() or before(self, lora_request)

    return model_name
