"""The notebook runs from its first cell to its last, and its stored pictures are there."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

NOTEBOOK = json.loads((Path(__file__).parents[2] / "examples" / "split.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_cells_run_in_order_and_name_a_strength() -> None:
    from matplotlib import pyplot

    names: dict[str, Any] = {}
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            for number, source in enumerate(CODE):
                exec(compile(source, f"cell {number}", "exec"), names)
    finally:
        pyplot.close("all")
    found = names["found"].recommendation
    assert found.reliable and 1 < found.m < 4
    assert found.preference_gain > 10 and found.utility_drop <= 1.001
    assert found.strength in out.getvalue()
    assert names["before"] != names["after"]
    assert not any(hooks for module in names["model"].modules() for hooks in (module._forward_hooks,))


def test_the_stored_notebook_has_its_pictures() -> None:
    outputs = [output for cell in NOTEBOOK["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    written = "".join("".join(o.get("text", [])) for o in outputs)
    assert "Use m = " in written
    assert "/tmp" not in json.dumps(outputs) and "site-packages" not in json.dumps(outputs)
