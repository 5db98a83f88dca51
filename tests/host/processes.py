"""EasyEdit's scripts, and files of checks, in processes of their own; the checkouts that EASYEDIT_HOME names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from host.models import make_workplace

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
HOMES = [Path(entry) for entry in os.environ.get("EASYEDIT_HOME", "").split(os.pathsep) if entry]
LAUNCHED = [sys.executable, "-m", "easyedit_split", "run"]
PLAIN = [sys.executable]
SCRIPTS = ("vectors_generate.py", "vectors_apply.py", "examples/run_SPILT.py")


@dataclass(frozen=True)
class Finished:
    status: int
    output: str


def start(command: list[str], place: Path, home: Path, log: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    environment = {
        **os.environ, "PYTHONPATH": path, "EASYEDIT_HOME": str(home), "OMP_NUM_THREADS": "1",
        "HYDRA_FULL_ERROR": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=place, env=environment, stdout=file, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes], log: Path) -> Finished:
    status = process.wait(timeout=1800)
    return Finished(status, log.read_text(encoding="utf-8", errors="replace"))


def run(command: list[str], place: Path, home: Path) -> Finished:
    log = place / "run.log"
    return finish(start(command, place, home, log), log)


def lazy_registry(home: Path) -> bool:
    """Whether the checkout can be imported without the launcher."""
    return "METHOD_FNS" in (home / "steer" / "utils" / "alg_dict.py").read_text(encoding="utf-8")


def make_clone(root: Path, checkout: Path) -> Path:
    """A folder like a user's clone, whose files may be edited: scripts, hparams and data; `steer` is the checkout's."""
    place = make_workplace(root, checkout)
    (place / "hparams").unlink()
    shutil.copytree(checkout / "hparams" / "Steer", place / "hparams" / "Steer")
    (place / "examples").mkdir()
    for name in SCRIPTS:
        shutil.copy(checkout / name, place / name)
    (place / "steer").symlink_to(checkout / "steer")
    return place


def change_one_word(place: Path, dataset: str, model: str, name: str = "spilt", to: str = "split") -> None:
    """In the `spilt` files that EasyEdit ships for a data set and model, `alg_name: spilt` becomes `split`."""
    experiment = place / "hparams" / "Steer" / "experiment_hparams" / "spilt_experiment"
    for file in (experiment / dataset / model / "spilt").glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert f"alg_name: {name}\n" in text
        file.write_text(text.replace(f"alg_name: {name}\n", f"alg_name: {to}\n"), encoding="utf-8")
