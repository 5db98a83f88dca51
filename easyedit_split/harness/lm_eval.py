"""A steered model in lm-evaluation-harness, under the name `easyedit_split`.

The harness finds models that were registered before it starts; `python -m easyedit_split.harness.lm_eval` registers
this one and goes on as `lm_eval` with the same arguments. In Python, importing this module is enough.
"""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from ..errors import ConfigError, nearest
from ..models.loading import load_model
from .steered import Steering

# of HFLM's, those that it follows for a model that was loaded already
OPTIONS = (
    "batch_size", "max_batch_size", "max_length", "truncation", "logits_cache", "add_bos_token", "prefix_token_id",
    "softmax_dtype", "mixed_precision_dtype", "think_end_token", "enable_thinking", "chat_template_args",
)  # fmt: skip


@register_model("easyedit_split")
class SteeredLM(HFLM):
    """`hf` of the harness with a change attached; with m = 0, or without a change, its numbers are those of `hf`.

    Args:
        pretrained: as `load_model` takes it: a folder, a hub id, a GGUF file, `demo`, `smollm2`.
        artifact, m: the change and its strength (`Steering`).
        dtype: as `load_model` takes it.
        options: see `OPTIONS`.

    Raises:
        ConfigError: an option that would be ignored; see also `Steering` and `load_model`.
    """

    def __init__(
        self,
        pretrained: str,
        artifact: str | None = None,
        m: float | None = None,
        dtype: str = "auto",
        device: str | None = None,
        **options: Any,
    ) -> None:
        for name in options:
            if name not in OPTIONS:
                raise ConfigError(f"{name} is no argument of this model{nearest(name, (*OPTIONS, 'artifact', 'm'))}")
        if not torch.cuda.is_available() and str(device).startswith("cuda"):
            device = "cpu"  # the harness says cuda:0 where nobody said anything
        model, tokenizer = load_model(pretrained, dtype=dtype, device=device)
        super().__init__(pretrained=model, tokenizer=tokenizer, **options)
        self.steering = Steering(model, artifact, m)
        self._answer: int | None = None

    def get_model_info(self) -> dict[str, Any]:
        """What the results keep of the model, the change among it."""
        return {
            "model_num_parameters": sum(p.numel() for p in self.model.parameters()),
            "model_dtype": str(self.model.dtype),
            "steering": self.steering.about(),
        }

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:
        """As the harness does it. A change of answer positions must know where an answer begins, which the harness does
        not pass on in a batch: such requests go one by one."""
        handle = self.steering.handle
        if handle is None or handle.positions.rule != "answer":
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        return [self._alone(request) for request in requests]

    def _alone(self, request: Any) -> Any:
        self._answer = len(request[2])
        try:
            return super()._loglikelihood_tokens([request], disable_tqdm=True, override_bs=1)[0]
        finally:
            self._answer = None

    def _model_call(self, inps: torch.Tensor, *rest: Any, **more: Any) -> Any:
        if self._answer is None or self.steering.handle is None:
            return super()._model_call(inps, *rest, **more)
        mask = torch.zeros(inps.shape, dtype=torch.bool)
        mask[:, -self._answer :] = True  # the last token of an answer is only predicted, so each of these predicts one
        with self.steering.handle.steer_only(mask):
            return super()._model_call(inps, *rest, **more)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
