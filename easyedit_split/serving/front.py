"""What the plugin does in the process that takes requests: it checks what they ask for, and lists artifacts as models.

Each function here makes a replacement for one of vLLM's own, `before` (see `internals`).
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError, SteeringError
from .api import ASKED, ModelNames, add_models
from .catalogue import Catalogue, catalogue_of
from .request import FIELD, RESOLVED, check_fields, is_asked, resolve


def config(before: Any) -> Any:
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        from .compatibility import check_engine, check_model

        made = before(self, *args, **kwargs)
        catalogue = catalogue_of(made)
        if catalogue is not None:
            check_engine(made)
            for served in catalogue.entries:
                check_model(served, made.model_config.hf_config)
        return made

    return create_engine_config


def request(before: Any) -> Any:
    from vllm.exceptions import VLLMValidationError

    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = before(self, *args, **kwargs)
        params = request.sampling_params
        extra = params.extra_args if params is not None else None
        if not extra or not any(map(is_asked, extra)):
            return request
        catalogue = catalogue_of(self.vllm_config)
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


def app(before: Any) -> Any:
    def init_entrypoints_middleware(args: Any, app: Any, supported_tasks: Any) -> Any:
        catalogue = Catalogue.of(getattr(args, "additional_config", None))
        if catalogue is not None:
            app.add_middleware(
                ModelNames, catalogue=catalogue
            )  # first, and so behind vLLM's own: keys are checked before
        return before(args, app, supported_tasks)

    return init_entrypoints_middleware


def models(before: Any) -> Any:
    async def show_available_models(self: Any) -> Any:
        found = await before(self)
        catalogue = catalogue_of(self.input_processor.vllm_config)
        return found if catalogue is None else add_models(found, catalogue)

    return show_available_models


def model_name(before: Any) -> Any:
    def model_name(self: Any, lora_request: Any = None) -> Any:
        return ASKED.get() or before(self, lora_request)

    return model_name
