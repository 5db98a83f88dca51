"""The peers, each in a virtual environment of its own, made from pinned packages when it is first asked for.

None of them is a dependency of this package. A peer that insists on another torch or on an older transformers is
installed without its dependencies, beside what it needs: so all run on the same torch and transformers, and what is
compared is the peer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BASE = ("torch==2.13.0", "transformers==5.23.0")
#: environment -> what pip resolves, and what is installed as it is
PACKAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "peft": (("peft==0.21.2",), ()),
    "trl": (("peft==0.21.2", "trl==1.16.0"), ()),
    "steering-vectors": (("scikit-learn==1.9.1",), ("steering-vectors==0.12.2",)),
    "repeng": (("numpy==1.26.4", "scikit-learn==1.9.1", "gguf==0.19.0"), ("repeng==0.4.0",)),
    "pyreft": (
        ("accelerate==1.15.0", "datasets==5.2.0", "matplotlib==3.11.2", "seaborn==0.13.2", "scikit-learn==1.9.1"),
        ("pyreft==0.1.0", "pyvene==0.1.8"),
    ),
}
OURS = ""  # the environment this script runs in


def home() -> Path:
    """`PEERS_HOME`, or a folder in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PEERS_HOME") or cache / "easyedit-split" / "peers")


def python_of(environment: str) -> str:
    """The interpreter of an environment."""
    return str(home() / environment / "bin" / "python") if environment else sys.executable


def is_made(environment: str) -> bool:
    """Whether it is there, and whole: the record of its packages is written last."""
    record = home() / environment / "packages.txt"
    return not environment or (record.is_file() and record.read_text(encoding="utf-8") == _record(environment))


def make(environment: str) -> None:
    """Make it, where it is not there.

    Raises:
        subprocess.CalledProcessError: a package cannot be installed.
    """
    if is_made(environment):
        return
    folder = home() / environment
    resolved, alone = PACKAGES[environment]
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [python_of(environment), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *BASE, *resolved], check=True)
    if alone:
        subprocess.run([*pip, "--no-deps", *alone], check=True)
    (folder / "packages.txt").write_text(_record(environment), encoding="utf-8")


def versions(environment: str) -> str:
    """The peer's own packages, for the printed page."""
    resolved, alone = PACKAGES[environment]
    return ", ".join(name for name in (*resolved, *alone) if name.split("==")[0] in _PEERS)


_PEERS = {"peft", "trl", "steering-vectors", "repeng", "pyreft", "pyvene"}


def _record(environment: str) -> str:
    resolved, alone = PACKAGES[environment]
    return "\n".join([*BASE, *resolved, *alone]) + "\n"
