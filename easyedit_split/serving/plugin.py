"""The plugin: what vLLM calls in each of its processes (entry point `vllm.general_plugins`).

Nothing is steered, and nothing refused, in an engine without a catalogue in its `additional_config`.
"""

from __future__ import annotations

import logging
from typing import Any

from ..errors import ConfigError
from . import engine, front, internals
from .catalogue import KEY

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
    internals.CONFIG.wrap(front.config)
    internals.LOAD.wrap(engine.load)
    internals.REQUEST.wrap(front.request)
    internals.ENGINE.wrap(engine.engine)
    internals.PREFIX.wrap(engine.prefix)
    internals.STEP.wrap(engine.step)
    internals.FORWARD.wrap(engine.forward)
    internals.APP.wrap(front.app)
    internals.MODELS.wrap(front.models)
    internals.MODEL_NAME.wrap(front.model_name)


def _refuse_artifacts(error: ConfigError) -> None:
    def make(before: Any) -> Any:
        def __post_init__(self: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self.additional_config, dict) and KEY in self.additional_config:
                raise error
            return before(self, *args, **kwargs)

        return __post_init__

    internals.Hook("vllm.config:VllmConfig.__post_init__", ("self",)).wrap(make)
