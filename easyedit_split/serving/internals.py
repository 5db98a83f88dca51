"""The places inside vLLM that the plugin hangs into, and the versions that have them as they are known here.

Each hook is looked up, and its parameters compared, before anything is changed: a vLLM that differs is refused.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError

TESTED = ("0.32.0", "0.31.0")


@dataclass(frozen=True)
class Hook:
    """A function of vLLM, `module:path`, and the parameters that are relied on, in this order."""

    where: str
    parameters: tuple[str, ...]

    def owner(self) -> tuple[Any, str]:
        """The object that holds it and its name there."""
        module, _, path = self.where.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        return owner, name

    def is_known(self) -> bool:
        try:
            owner, name = self.owner()
            found = tuple(inspect.signature(getattr(owner, name)).parameters)
        except (ImportError, AttributeError, TypeError, ValueError):
            return False
        return found[: len(self.parameters)] == self.parameters

    def wrap(self, make: Callable[[Any], Any]) -> None:
        """Replace it by `make(it)`, once in a process."""
        owner, name = self.owner()
        before = getattr(owner, name)
        if not hasattr(before, "steered"):
            after: Any = functools.wraps(before)(make(before))
            after.steered = True
            setattr(owner, name, after)


CONFIG = Hook("vllm.engine.arg_utils:EngineArgs.create_engine_config", ("self", "usage_context"))
LOAD = Hook(
    "vllm.model_executor.model_loader.base_loader:BaseModelLoader.load_model",
    ("self", "vllm_config", "model_config", "prefix"),
)
REQUEST = Hook(
    "vllm.v1.engine.input_processor:InputProcessor.process_inputs", ("self", "request_id", "prompt", "params")
)
ENGINE = Hook("vllm.v1.engine.core:EngineCore.preprocess_add_request", ("self", "request"))
PREFIX = Hook(
    "vllm.v1.core.kv_cache_utils:_gen_prompt_embeds_extra_hash_keys", ("request", "start_token_idx", "end_token_idx")
)
STEP = Hook(
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._prepare_inputs",
    ("self", "scheduler_output", "num_scheduled_tokens"),
)
FORWARD = Hook("vllm.v1.worker.gpu_model_runner:GPUModelRunner._model_forward", ("self", "input_ids", "positions"))
APP = Hook("vllm.entrypoints.launchers.app:init_entrypoints_middleware", ("args", "app", "supported_tasks"))
MODELS = Hook("vllm.entrypoints.openai.models.serving:OpenAIServingModels.show_available_models", ("self",))
MODEL_NAME = Hook("vllm.entrypoints.openai.models.serving:OpenAIServingModels.model_name", ("self", "lora_request"))
# the other runner, which CUDA uses by default
STEP_V2 = Hook(
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner.prepare_inputs",
    ("self", "scheduler_output", "batch_req_state", "batch_desc"),
)
ADD_V2 = Hook("vllm.v1.worker.gpu.model_runner:GPUModelRunner.add_requests", ("self", "scheduler_output"))
REMOVE_V2 = Hook("vllm.v1.worker.gpu.model_runner:GPUModelRunner._remove_request", ("self", "req_id"))

EVERYWHERE = (CONFIG, LOAD, REQUEST, ENGINE, PREFIX, STEP, FORWARD, APP, MODELS, MODEL_NAME)
SECOND_RUNNER = (STEP_V2, ADD_V2, REMOVE_V2)


def check_version(version: str) -> None:
    """Raise `ConfigError` unless this vLLM is one the plugin was tested with, and has what it hangs into (but for the
    second runner, which is looked at where it runs)."""
    plain = version.partition("+")[0]
    if plain not in TESTED:
        raise ConfigError(
            f"vLLM {version} is unknown to this plugin, which was tested with {' and '.join(TESTED)}: "
            "install one of them"
        )
    check_hooks(EVERYWHERE)


def check_hooks(hooks: Sequence[Hook]) -> None:
    """Raise `ConfigError` for a hook that is not there as it is known."""
    for hook in hooks:
        if not hook.is_known():
            raise ConfigError(
                f"vLLM has no {hook.where} as this plugin knows it, which was tested with vLLM {' and '.join(TESTED)}: "
                "install one of them anew"
            )
