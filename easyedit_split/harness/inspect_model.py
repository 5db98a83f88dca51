"""A steered model in Inspect: `--model easyedit_split/MODEL -M artifact=FOLDER -M m=2`."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import GenerateConfig
from inspect_ai.model._providers.hf import HuggingFaceAPI

from ..models.loading import folder_of
from .steered import Steering


class SteeredAPI(HuggingFaceAPI):
    """Inspect's provider `hf` with a change attached; with m = 0, or without a change, its answers are those of `hf`.

    Args:
        model_name: as `load_model` takes it: a folder, a hub id, a GGUF file, `demo`, `smollm2`.
        artifact, m: the change and its strength (`Steering`).
        model_args: those of Inspect's `hf` (device, do_sample, batch_size, dtype, …).

    Raises:
        SteeringError: see `Steering` and `models.loading.folder_of`.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        artifact: str | None = None,
        m: float | None = None,
        **model_args: Any,
    ) -> None:
        model_args.setdefault("model_path", str(folder_of(model_name)))
        super().__init__(model_name, base_url, api_key, config, **model_args)
        self.steering = Steering(self.model.eval(), artifact, m)
