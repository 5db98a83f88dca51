"""`ori_generate` is the model without interventions."""

from __future__ import annotations

import ast
from pathlib import Path

from ..edit import Refused, Source
from ..patch import NotNeeded, Patch

TAKE_AWAY = """
# interventions, too, are no part of the original output
held = [(layer, layer.intervention_dict) for layer in model_layers if getattr(layer, "intervention_dict", None)]
for layer, _ in held:
    layer.intervention_dict = {}
"""
PUT_BACK = """
for layer, interventions in held:
    layer.intervention_dict = interventions
"""


def apply(root: Path) -> None:
    source = Source(root, "steer/models/model_wrapper.py")
    if any(source.all(ast.Assign, lambda n: ast.unparse(n) == "layer.intervention_dict = {}")):
        raise NotNeeded("interventions are taken away already")
    found = list(source.all(ast.FunctionDef, lambda n: n.name in ("ori_generate", "ori_vllm_generate")))
    if not found:
        raise Refused("steer/models/model_wrapper.py has no ori_generate")
    for function in found:
        run = [node for node in function.body if isinstance(node, ast.Try) and node.finalbody]
        if len(run) != 1 or not any(source.all(ast.Name, lambda n: n.id == "model_layers", function)):
            raise Refused(f"{function.name} does not generate within one try and finally over model_layers")
        source.before(run[0], TAKE_AWAY)
        source.after(run[0].finalbody[-1], PUT_BACK)
    source.save()


PATCH = Patch(
    11,
    "original-output",
    "Generate original outputs without interventions",
    "`ori_generate` clears the added activations but leaves interventions (RePS, SFT, SPILT) on, so `orig_pred` is "
    "steered. Take them away for the time, too.",
    apply,
    cures=("test_original_output_is_not_steered",),
    defects=("test_original_output_is_steered",),
)
