"""pyreft's way to steer: an intervention on a block's output at every position, with the vector's strength a row."""

from __future__ import annotations

from typing import Any

import pyreft
import pyvene
import torch


class Direction(
    pyvene.SourcelessIntervention, pyvene.TrainableIntervention, pyvene.DistributedRepresentationIntervention
):
    """Adds `factor` times a vector, or takes the direction out; `subspaces` says which, as in AxBench."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, keep_last_dim=True)
        self.vector = torch.nn.Parameter(torch.zeros(self.embed_dim))

    def forward(self, base: Any, source: Any = None, subspaces: Any = None) -> Any:
        how = subspaces[0] if isinstance(subspaces, list) else subspaces
        how = how or {"mode": "add", "factor": torch.ones(1)}
        if how["mode"] == "add":
            return base + how["factor"].view(-1, 1, 1) * self.vector
        along = (base @ self.vector) / (self.vector @ self.vector).clamp_min(1e-8)
        return base - along[..., None] * self.vector


def reft_model(model: Any, layer: int) -> tuple[Any, Any]:
    """The model in pyreft's wrapper, and the vector to train."""
    direction = Direction(embed_dim=model.config.hidden_size, low_rank_dimension=1)
    config = pyreft.ReftConfig(
        representations=[
            {"layer": layer, "component": "block_output", "low_rank_dimension": 1, "intervention": direction}
        ]
    )
    return pyreft.get_reft_model(model, config), direction.vector


def steered_logits(steered: Any, ids: Any, mask: Any, mode: str, factor: Any) -> Any:
    """Logits with every position of every row steered."""
    everywhere = [[list(range(ids.shape[1]))] * len(ids)]
    _, outputs = steered(
        {"input_ids": ids, "attention_mask": mask},
        unit_locations={"sources->base": (None, everywhere)},
        subspaces=[{"mode": mode, "factor": factor}],
        use_cache=False,
    )
    return outputs.logits


def steered_texts(steered: Any, ids: Any, mask: Any, **options: Any) -> Any:
    """Generated ids. The prompt's positions are steered; new tokens are not, as pyreft runs here."""
    everywhere = [[list(range(ids.shape[1]))] * len(ids)]
    _, texts = steered.generate(
        {"input_ids": ids, "attention_mask": mask},
        unit_locations={"sources->base": (None, everywhere)},
        intervene_on_prompt=True,
        subspaces=[{"mode": "add", "factor": torch.ones(1)}],
        **options,
    )
    return texts
