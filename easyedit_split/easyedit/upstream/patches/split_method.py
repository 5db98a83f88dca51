"""The method itself: `alg_name: split` beside `spilt`, where this package is installed."""

from __future__ import annotations

import ast
import datetime
from pathlib import Path

from ....settings.shipped import hparams_root
from ....storage.files import write_text
from ..edit import Refused, Source, edit_lines
from ..patch import Patch
from .experiment_files import below, with_entry

HOOK = """
try:
    from easyedit_split.easyedit import register
except ImportError:
    pass  # optional: easyedit-split adds alg_name: split, unified_sft, unified_reps, unified_diffmean
else:
    register()

"""
REQUIREMENT = "easyedit-split"
ENTRY = """\
- **[SPLIT, unified](hparams/Steer/split_hparams/README.md)** (`alg_name: split`):
  SPLIT and its baselines as one change of an affine map with a dial, with sweeps, fits of the decay law and a recommended strength. <br>
  > **Code:** `pip install easyedit-split` &nbsp;|&nbsp; [Hyper-parameters↗](hparams/Steer/split_hparams).
"""  # noqa: E501
NEWS = "EasyEdit2 supports `alg_name: split` through the optional package `easyedit-split`: SPLIT with one factor a pair, one hinge a pair and the update at the linear layer, see [its files](hparams/Steer/split_hparams/README.md)."  # noqa: E501
GUIDE = """\
# SPLIT, unified

| key | meaning |
| --- | --- |
| `alg_name` | `split`; the baselines are `unified_sft`, `unified_reps`, `unified_diffmean` |
| `intervention_method` | `vector`, `lora` or `local_weight` |
| `intervention_components` | `mlp_mid`: the change is made at `mlp.down_proj`; left out: at the block's output |
| `pos_loss_weight`, `neg_loss_weight` | weights of the two answers' losses |
| `margin_penalty_weight`, `margin_threshold` | weight and width of the hinge, taken for each pair |
| `steering_factors` | one is drawn for each pair |
| `multipliers` | the strength at application, one for each layer |

An existing `spilt` file works once its `alg_name` says `split`. Run it like any method:

    python vectors_generate.py steer_train_hparam_paths=[hparams/Steer/split_hparams/NAME.yaml] \\
        steer_train_dataset=[psychopathy] steer_vector_output_dirs=[vectors/split]

Files are in the merged layout (`generate:` and `apply:`).
"""


def apply(root: Path) -> None:
    source = Source(root, "steer/__init__.py")
    code = [n for n in source.tree.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    if not code:
        raise Refused("steer/__init__.py is empty")
    source.before(code[0], HOOK)
    source.save()
    edit_lines(root / "requirements_2.txt", _required)
    edit_lines(root / "README_2.md", lambda lines: with_entry(lines, ENTRY))
    edit_lines(root / "README.md", _news)
    folder = root / "hparams/Steer/split_hparams"
    for file in sorted(hparams_root().glob("*/*/split_*.yaml")):
        model, dataset = file.parent.parent.name, file.parent.name
        if model in ("gemma-2-9b-it", "qwen2.5-7b-instruct"):
            write_text(folder / f"{model}_{dataset}_{file.stem}.yaml", file.read_text(encoding="utf-8"))
    write_text(folder / "README.md", GUIDE)


def _required(lines: list[str]) -> list[str]:
    """In alphabetical order, as the others are."""
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    place = next((i for i, line in enumerate(lines) if line.lower() > REQUIREMENT), len(lines))
    return [*lines[:place], REQUIREMENT + end, *lines[place:]]


def _news(lines: list[str]) -> list[str]:
    head = next((line.rstrip() for line in lines if line.startswith("## ") and "News" in line), "## News")
    return below(lines, head, f"- {datetime.date.today().isoformat()}, {NEWS}")


PATCH = Patch(
    15,
    "split-method",
    "Add the optional SPLIT package as alg_name: split",
    "Registers the methods of `easyedit-split` where it is installed, and does nothing where it is not. Adds its "
    "hyper-parameter files with a README, the requirement, the entry in README_2.md and a line of news. `spilt`, "
    "`sft`, `reps` and `caa` are untouched.",
    apply,
    cures=("test_split_is_a_method_of_plain_easyedit",),
    defects=("test_split_is_no_method_of_plain_easyedit",),
)
