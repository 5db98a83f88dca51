"""Chat templates are tokenised to lists under transformers 5 as before."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from ..edit import Refused, Source
from ..patch import Patch

FILES = (
    *(f"steer/vector_generators/{method}/utils.py" for method in ("reps", "sft", "spilt")),
    "steer/trainer/utils/data_utils.py",
)


def apply(root: Path) -> None:
    for name in FILES:
        source = Source(root, name)
        calls = list(source.all(ast.Call, _tokenises))
        if not calls:
            raise Refused(f"{name} tokenises no chat template")
        for call in calls:
            source.insert(call.keywords[-1].value, ", return_dict=False")
        source.save()


def _tokenises(node: Any) -> bool:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    called = ast.unparse(node.func).endswith("apply_chat_template")
    return called and given.get("tokenize") == "True" and "return_dict" not in given


PATCH = Patch(
    7,
    "templates",
    "Tokenize chat templates to lists under transformers 5",
    "From transformers 5 on, `apply_chat_template(tokenize=True)` returns a BatchEncoding. Compared key by key it "
    "makes the prefix length 0 without a word, and elsewhere it stops. Ask for the list, which transformers 4 "
    "understands too.",
    apply,
    cures=("test_prefix_length_is_that_of_the_template", "test_training_runs_without_help_for_templates"),
    defects=("test_prefix_length_is_found_as_zero_under_transformers_5", "test_suffix_crashes_under_transformers_5"),
)
