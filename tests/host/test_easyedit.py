"""The plugin inside real EasyEdits: the checkouts that EASYEDIT_HOME names, separated by colons.

For each checkout: `checks*.py` and `defects.py` through the Python API, and EasyEdit's
unmodified scripts, in processes of their own. They are started together, because importing EasyEdit takes most of
their time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from host.models import make_models, make_workplace
from host.processes import HOMES, LAUNCHED, PLAIN, ROOT, TESTS, finish, lazy_registry, start

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not HOMES, reason="EASYEDIT_HOME names no checkout of EasyEdit"),
]


@pytest.fixture(scope="module")
def checks(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.Popen[bytes], Path]:
    folder = tmp_path_factory.mktemp("checks")
    options = ["-o", "filterwarnings=ignore", "-p", "no:cacheprovider", "-q", "-x", "--rootdir", str(ROOT)]
    files = [str(file) for file in [*sorted((TESTS / "host").glob("checks*.py")), TESTS / "host" / "defects.py"]]
    command = [sys.executable, "-m", "pytest", *files, *options]
    log = folder / "checks.log"
    return start([*command, "--basetemp", str(folder / "tmp")], ROOT, home, log), log


@pytest.fixture(scope="module")
def place(checks: object, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run scripts in; the checks run meanwhile."""
    folder = make_workplace(tmp_path_factory.mktemp("scripts") / "place", home)
    make_models(folder)
    return folder


def arguments(shape: str, **more: str) -> list[str]:
    given = {"model_name_or_path": f"./{shape}", "device": "cpu", **more}
    # the oldest commit calls the dtype torch_dtype
    return [f"{key}={value}" for key, value in given.items()] + ["++dtype=float32", "++torch_dtype=float32"]


def test_scripts_of_easyedit_run_unchanged(home: Path, place: Path) -> None:
    """vectors_generate.py and vectors_apply.py by the launcher, with a file that ships, found by its name."""
    name = "demo/reviews/split_local_weight"
    generate = [*LAUNCHED, str(home / "vectors_generate.py")]
    generate += arguments(
        "tiny-gemma2",
        steer_train_hparam_paths=f"['${{split_hparams:{name}}}']",
        steer_train_dataset="[psychopathy]",
        steer_vector_output_dirs="[vectors]",
    )
    log = place / "generate.log"
    done = finish(start(generate, place, home, log), log)
    assert done.status == 0, done.output
    saved = place / "vectors" / "psychopathy" / "split_local_weight"
    assert (saved / "layer_3.safetensors").is_file()

    apply = [*LAUNCHED, str(home / "vectors_apply.py")]
    apply += arguments(
        "tiny-gemma2",
        apply_steer_hparam_paths=f"['${{split_hparams:{name}}}']",
        steer_vector_load_dir=f"[{saved.relative_to(place)}]",
        generation_data="[psychopathy]",
        generation_data_size="2",
        generation_output_dir="out",
        generate_orig_output="true",
        generation_params="{max_new_tokens:5,do_sample:false}",
    )
    apply.append("+multipliers=[4.0]")
    log = place / "apply.log"
    done = finish(start(apply, place, home, log), log)
    assert done.status == 0, done.output
    results = json.loads((place / "out" / "psychopathy_results.json").read_text(encoding="utf-8"))
    assert len(results) == 2
    assert all(row["pred"] and row["orig_pred"] for row in results)
    assert any(row["pred"] != row["orig_pred"] for row in results)


def test_hydra_plugin_registers_where_easyedit_can_be_imported(home: Path, place: Path) -> None:
    """Plain `python vectors_generate.py`: Hydra finds the plugin. The other two need the launcher's repair."""
    if not lazy_registry(home):
        pytest.skip("this checkout cannot be imported without the launcher (or, for the oldest, without sae_lens)")
    method = place / "vector.yaml"
    method.write_text(
        "alg_name: split\nlayers: [1]\nintervention_method: vector\ngenerate:\n  n_epochs: 1\n  batch_size: 3\n",
        encoding="utf-8",
    )
    command = [*PLAIN, str(home / "vectors_generate.py")]
    command += arguments(
        "tiny-llama",
        steer_train_hparam_paths=f"[{method}]",
        steer_train_dataset="[psychopathy]",
        steer_vector_output_dirs="[plain]",
    )
    log = place / "plain.log"
    done = finish(start(command, place, home, log), log)
    assert done.status == 0, done.output
    vector = torch.load(place / "plain" / "psychopathy" / "split_vector" / "layer_1.pt", weights_only=True)
    assert vector.shape == (32,)


def test_python_api(checks: tuple[subprocess.Popen[bytes], Path], place: Path) -> None:
    """Everything in the files of checks and in defects.py; their output is shown where it fails."""
    done = finish(*checks)
    assert done.status == 0, done.output[-8000:]
