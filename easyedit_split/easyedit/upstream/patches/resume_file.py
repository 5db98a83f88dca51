"""The resume file is JSON: reading it runs nothing."""

from __future__ import annotations

import ast
from pathlib import Path

from ..edit import Refused, Source
from ..patch import Patch

LOAD = '''
def load_state(dump_dir, state_file=STATE_FILE):
    """What save_state kept, or None."""
    path = os.path.join(dump_dir, state_file)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return json.load(f)
'''
SAVE = '''
def save_state(dump_dir, state, state_file=STATE_FILE):
    """Keep how far training came, as JSON."""
    os.makedirs(dump_dir, exist_ok=True)
    with open(os.path.join(dump_dir, state_file), "w", encoding="utf-8") as f:
        json.dump(state, f)
'''


def apply(root: Path) -> None:
    for method in ("reps", "sft", "spilt"):
        folder = f"steer/vector_generators/{method}"
        source = Source(root, f"{folder}/utils.py")
        source.replace(
            source.one(ast.Import, lambda n: [a.name for a in n.names] == ["pickle"], None, "import of pickle"),
            "import json",
        )
        source.replace(source.assignment("STATE_FILE").value, '"train_state.json"')
        source.replace(source.function("load_state"), LOAD)
        source.replace(source.function("save_state"), SAVE)
        source.save()
        source = Source(root, f"{folder}/generate_{method}.py")
        calls = list(source.all(ast.Call, lambda n: ast.unparse(n.func) in ("load_state", "save_state")))
        files = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "state_file"]
        if len(files) != 2:
            raise Refused(f"{source.name} names its resume file {len(files)} times; twice was expected")
        for file in files:
            source.replace(file, 'f"train_state_layer_{layer}.json"')
        source.save()


PATCH = Patch(
    10,
    "resume-file",
    "Store the resume state as JSON",
    "The state file of a multi-concept run is a pickle, and reading a pickle runs code. It holds one number: write it "
    "as JSON. Old state files are not read any more; such a run starts again.",
    apply,
    cures=("test_resume_file_is_json",),
    defects=("test_resume_file_runs_code",),
)
