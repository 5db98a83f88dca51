"""Putting the dials of a catalogue into a model that vLLM has loaded: each part of an artifact at its own place, all on
the artifact's strength."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import nn
from vllm.config import ModelConfig, VllmConfig

from ..changes.forms import LinearDelta, parts_of
from ..models.guards import random_state_kept
from .catalogue import Catalogue
from .compatibility import check_engine, check_model
from .dial import ATTRIBUTE, Added, Dial, Steering, apply_steered, block_steered
from .places import Place, find_place
from .strengths import Strengths


def splice(model: nn.Module, config: VllmConfig, model_config: ModelConfig) -> None:
    """Put a dial on every module that an artifact of the server's catalogue names.

    Raises:
        ConfigError: the engine runs in a way in which steering was not shown to be right.
        ArtifactError: an artifact is broken, or made for another model.
        SiteError: the model has no such map.
    """
    catalogue = Catalogue.of(config.additional_config)
    if catalogue is None:
        return
    check_engine(config)
    for served in catalogue.entries:
        check_model(served, model_config.hf_config)
    device = next(model.parameters()).device
    strengths = Strengths(len(catalogue.entries), _most_tokens(config), device)
    with random_state_kept():
        dials = _dials(model, catalogue, model_config, strengths)
    setattr(model, ATTRIBUTE, Steering(strengths, dials))


def _dials(model: nn.Module, catalogue: Catalogue, config: ModelConfig, strengths: Strengths) -> list[Dial]:
    at: dict[nn.Module, list[Added]] = {}
    for number, served in enumerate(catalogue.entries):
        for part, delta in zip(served.parts, parts_of(served.load().delta), strict=True):
            place = find_place(model, served, part, config.hf_text_config.num_hidden_layers)
            if place is not None:
                at.setdefault(place.module, []).append(_added(number, delta, place, config.dtype, strengths))
    return [_put_on(module, Dial(strengths, added)) for module, added in at.items()]


def _added(number: int, delta: LinearDelta, place: Place, dtype: torch.dtype, strengths: Strengths) -> Added:
    own = place.own_part(delta.tensors())
    device = strengths.values.device
    tensors = {key: t.to(device, torch.float32 if key == "db" else dtype) for key, t in own.items()}
    return Added(number, place.rows, tensors)


def _put_on(module: nn.Module, dial: Dial) -> Dial:
    method: Any = getattr(module, "quant_method", None)
    if method is None:
        module.register_forward_hook(functools.partial(block_steered, dial.number))
    else:  # below an adapter's wrapper, too, which calls the method of the layer it wraps
        steered = copy.copy(method)
        steered.apply = functools.partial(apply_steered, method.apply, dial.number)
        module.quant_method = steered
    return dial


def _most_tokens(config: VllmConfig) -> int:
    """The most tokens of a step, with room for what graphs and parallel groups pad it to."""
    captured = config.compilation_config.max_cudagraph_capture_size or 0
    return max(config.scheduler_config.max_num_batched_tokens, captured) + 128
