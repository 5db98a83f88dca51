"""Whether an artifact was made for the model that is served."""

from __future__ import annotations

from typing import Any

from ..errors import ArtifactError
from .catalogue import Served


def check_model(served: Served, config: Any) -> None:
    """Raise `ArtifactError` unless the artifact was made for a model of this configuration (transformers')."""
    text = config.get_text_config()
    here = {"architecture": text.model_type, "layers": text.num_hidden_layers, "width": text.hidden_size}
    for key, value in here.items():
        if served.model.get(key, value) != value:
            raise ArtifactError(
                f"artifact {served.name!r} was made for a model whose {key} is {served.model[key]}, and of this one it "
                f"is {value}: serve it with the model it was made for"
            )
