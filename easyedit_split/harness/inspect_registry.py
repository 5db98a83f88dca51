"""Tells Inspect of the provider `easyedit_split` (entry point `inspect_ai`); torch is loaded when it is asked for."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="easyedit_split")
def easyedit_split() -> type[ModelAPI]:
    from .inspect_model import SteeredAPI

    return SteeredAPI
