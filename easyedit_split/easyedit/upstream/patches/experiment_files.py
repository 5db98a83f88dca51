"""The files of the SPLIT experiments can be found and read, and its method is in the list of methods."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..edit import Refused, edit_lines
from ..patch import Patch

EXPERIMENTS = "hparams/Steer/experiment_hparams/spilt_experiment"
POWERSEEKING = """\
  powerseeking:
    file_path: ./data/powerseeking/test.csv
    field_names:
      input: 'question'
      reference_response: 'matching'

"""
_CODE = "https://github.com/zjunlp/EasyEdit/tree/main/steer"
ENTRY = f"""\
- **[SPLIT](examples/SPLIT.md)** (`alg_name: spilt`):
  SPLIT trains a vector, a LoRA or a local weight so that the preference for an answer rises while the model's utility holds. <br>
  > **Code:** [Generator↗]({_CODE}/vector_generators/spilt) &nbsp;|&nbsp; [Applier↗]({_CODE}/vector_appliers/spilt).
"""  # noqa: E501


def apply(root: Path) -> None:
    experiments = root / EXPERIMENTS
    if not experiments.is_dir():
        raise Refused(f"{EXPERIMENTS} does not exist in this checkout")
    edit_lines(root / "hparams/Steer/dataset_format.yaml", lambda lines: below(lines, "generation:", POWERSEEKING))
    edit_lines(root / "README_2.md", with_entry)
    edit_lines(root / "examples/run_SPILT.sh", lambda lines: [_shell(line) for line in lines])
    edit_lines(root / "examples/SPLIT.md", lambda lines: [_guide(line) for line in lines])
    for file in sorted(experiments.rglob("*.yaml")):
        _mend(file)


def below(lines: list[str], head: str, text: str) -> list[str]:
    """`lines` with `text` right below the one line that is `head`."""
    places = [i for i, line in enumerate(lines) if line.rstrip() == head]
    if len(places) != 1:
        raise Refused(f"{len(places)} lines are {head!r}; one was expected")
    end = "\r\n" if lines[places[0]].endswith("\r\n") else "\n"
    return lines[: places[0] + 1] + [line + end for line in text.splitlines()] + lines[places[0] + 1 :]


def with_entry(lines: list[str], entry: str = ENTRY) -> list[str]:
    """`README_2.md` with `entry` as the last but one of the activation-based methods."""
    places = [i for i, line in enumerate(lines) if line.startswith("- **Vector Prompt**")]
    if len(places) != 1:
        raise Refused("README_2.md does not list its methods as expected")
    end = "\r\n" if lines[places[0]].endswith("\r\n") else "\n"
    return lines[: places[0]] + [line + end for line in entry.splitlines()] + lines[places[0] :]


def _shell(line: str) -> str:
    """The runner and its arguments under the names that exist."""
    line = re.sub(r"(\./examples/)?run_SPLIT\.py", "examples/run_SPILT.py", line)
    line = re.sub(r"--method SPLIT\b", "--method spilt", line)
    return line.replace("qwen2.5-7b-instruct", "qwen2.5-7b-it")


def _guide(line: str) -> str:
    line = line.replace("](../run_SPILT.py)", "](run_SPILT.py)")
    return re.sub(r"python run_SPILT\.py", "python examples/run_SPILT.py", line)


def _mend(file: Path) -> None:
    changes: list[Callable[[str], str]] = [
        lambda line: re.sub(r"^concepts_id:", "concept_id:", line),
        lambda line: re.sub(r'^intervention_method: *"weight"', 'intervention_method: "local_weight"', line),
    ]
    lines = file.read_bytes().decode("utf-8").splitlines(keepends=True)
    mended, seen = [], set()
    for line in lines:
        for change in changes:
            line = change(line)
        key = line.split(":")[0] if re.match(r"\w+:", line) else None
        if key is None or line.strip() not in seen:
            mended.append(line)
        if key is not None:
            seen.add(line.strip())
    if mended != lines:
        edit_lines(file, lambda _: mended)
    if "_XXXXX" in file.name:
        file.rename(file.with_name(file.name.replace("_XXXXX", "")))


PATCH = Patch(
    13,
    "experiment-files",
    "Fix the files of the SPLIT experiments",
    "`run_SPILT.sh` calls a runner, a method and a model folder that do not exist; two method files have names that "
    "the runner never looks for, one has a key twice, two name the form `weight`; the apply files say `concepts_id`, "
    "which nothing reads; powerseeking has no entry under `generation:`, so it cannot be applied. README_2.md lists "
    "the method.",
    apply,
    cures=("test_runner_finds_every_file", "test_shell_script_names_what_exists", "test_every_data_set_can_be_applied"),
    defects=("test_yaml_slips", "test_some_files_are_never_found"),
)
