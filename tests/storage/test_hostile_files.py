"""Files nobody should trust: truncated, flipped, invented. Always one of our errors, never a crash, never code run."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import noisy
from tiny import tiny_model

from easyedit_split.changes.artifact import SteeringArtifact
from easyedit_split.changes.forms import make_delta
from easyedit_split.data.pairs import load_pairs
from easyedit_split.errors import SteeringError
from easyedit_split.formats.gguf import from_gguf, to_gguf
from easyedit_split.settings.files import load_hparams
from easyedit_split.storage.files import read_tensors, sealed, write_tensors
from easyedit_split.sweeps.progress import SweepProgress
from easyedit_split.sweeps.table import SweepTable
from easyedit_split.training.checkpoint import Checkpoint

CASES = 500  # a file kind, in the default run; ten times as many with `-m slow`
FEW = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
MANY = settings(FEW, max_examples=10 * CASES)


def _table() -> SweepTable:
    losses = np.arange(6.0).reshape(3, 2)
    return SweepTable(np.array([-1.0, 0.0, 1.0]), losses, losses, "sum", np.ones(2), np.ones(2), {"pairs": 2})


def _read_checkpoint(path: Path) -> Any:
    delta = make_delta("lora", 48, 32, 2)
    return Checkpoint(path, delta, torch.optim.AdamW(delta.parameters()), {"run": 1}).restore()


def _write_checkpoint(path: Path) -> None:
    delta = make_delta("lora", 48, 32, 2)
    optimizer = torch.optim.AdamW(delta.parameters())
    for parameter in delta.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    Checkpoint(path, delta, optimizer, {"run": 1}).write(1)


def _batches() -> list[torch.Tensor]:
    return [torch.tensor([[0, 0], [1, 0]]), torch.tensor([[0, 1], [1, 1]])]


def _read_partial(path: Path) -> Any:
    return SweepProgress(path, "run", 0.0).restore(np.empty((2, 2, 2)), _batches())


def _write_pairs(path: Path) -> None:
    rows = [{"question": "q", "matching": "yes", "not_matching": "no", "concept_id": i} for i in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# kind -> file name, how it is written, how it is read
Kind = tuple[str, Callable[[Path], object], Callable[[Path], object]]
KINDS: dict[str, Kind] = {
    "artifact": (
        "layer_1.safetensors",
        lambda p: noisy(tiny_model("qwen2"), "lora").save(p.parent),
        lambda p: SteeringArtifact.load(p),
    ),
    "sweep": ("sweep.parquet", lambda p: _table().save(p), SweepTable.load),
    "checkpoint": ("checkpoint", _write_checkpoint, _read_checkpoint),
    "partial": (
        "partial",
        lambda p: SweepProgress(p, "run", 0.0).batch_done(np.ones((2, 2, 2)), _batches(), 1),
        _read_partial,
    ),
    "peft weights": (
        "adapter_model.safetensors",
        lambda p: noisy(tiny_model("qwen2"), "lora").to_peft(p.parent),
        lambda p: SteeringArtifact.from_peft(p.parent),
    ),
    "peft config": (
        "adapter_config.json",
        lambda p: noisy(tiny_model("qwen2"), "lora").to_peft(p.parent),
        lambda p: SteeringArtifact.from_peft(p.parent),
    ),
    "gguf": (
        "v.gguf",
        lambda p: to_gguf(noisy(tiny_model("qwen2"), "vector", "residual"), p),
        from_gguf,
    ),
    "pairs": ("pairs.jsonl", _write_pairs, load_pairs),
    "hparams": (
        "h.yaml",
        lambda p: p.write_text("alg_name: split\nlayers: [3]\nlr: 0.01\napply: {multipliers: [1.0, 2.0]}\n"),
        load_hparams,
    ),
}


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` cut short, with bytes exchanged, a piece doubled, or a length field blown up."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["cut", "flip", "set", "insert", "huge", "swap"]))
        if how == "cut":
            del data[at:]
        elif how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            data[at : at + 4] = draw(st.binary(min_size=1, max_size=8))
        elif how == "insert":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif how == "huge":
            data[at : at + 8] = struct.pack("<Q", draw(st.sampled_from([2**63 - 1, 2**40, 2**32, 10**9])))
        elif how == "swap":
            other = draw(st.integers(0, max(0, len(data) - 1)))
            data[at : at + 4], data[other : other + 4] = data[other : other + 4], data[at : at + 4]
    return bytes(data)


@pytest.fixture(scope="module", params=KINDS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Any]:
    name, write, read = KINDS[request.param]
    path = tmp_path_factory.mktemp("hostile") / name
    write(path)
    read(path)
    return path, path.read_bytes(), read


def _survives(path: Path, read: Any, data: bytes) -> None:
    """Read `data`: a value or our error. Python memory stays within a small multiple of the file's size."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        read(path)
    except SteeringError as error:
        assert "\n" not in str(error), f"more than a sentence: {error}"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 32 * len(data) + (8 << 20), f"{peak} bytes for a file of {len(data)}"


def _fuzz(example: tuple[Path, bytes, Any], how_many: settings) -> None:
    path, whole, read = example

    @how_many
    @given(broken(whole))
    @pytest.mark.filterwarnings("ignore")
    def run(data: bytes) -> None:
        _survives(path, read, data)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert grown < 256, f"{grown} MB more for files of {len(whole)} bytes"


@pytest.mark.parametrize("kind", ["artifact", "sweep", "checkpoint", "partial"])
def test_every_flipped_bit_is_seen(tmp_path: Path, kind: str) -> None:
    """One bit in each of 300 places: our error, or, where it means nothing, the very same content."""
    name, write, read = KINDS[kind]
    path = tmp_path / name
    write(path)
    whole, expected = path.read_bytes(), _content(read(path))
    for at in np.linspace(0, len(whole) - 1, 300).astype(int).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            found = _content(read(path))
        except SteeringError:
            continue
        assert found == expected, f"byte {at}"


def _content(value: Any) -> Any:
    """What was read, in a form that compares."""
    if isinstance(value, SteeringArtifact):
        tensors = {k: t.tolist() for k, t in value.delta.tensors().items()}
        return tensors, value.site, value.positions, value.model, value.origin
    if isinstance(value, SweepTable):
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(value).items()}
    return value


@pytest.mark.filterwarnings("ignore::UserWarning")  # notes on spellings in settings files
def test_broken_files(example: tuple[Path, bytes, Any]) -> None:
    _fuzz(example, FEW)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_many_broken_files(example: tuple[Path, bytes, Any]) -> None:
    _fuzz(example, MANY)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"PK\x03\x04", b"\xff" * 64, b"{}", b"[" * 5000, b"\n\n"])
def test_files_of_another_kind(tmp_path: Path, kind: str, data: bytes) -> None:
    name, write, read = KINDS[kind]
    path = tmp_path / name
    write(path)
    path.write_bytes(data)
    if (kind, data) in (("hparams", b"{}"), ("hparams", b"\n\n")):
        pytest.skip("an empty settings file is a settings file")
    with pytest.raises(SteeringError):
        read(path)


class _Bomb:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_under_any_name_is_never_run(tmp_path: Path, kind: str) -> None:
    name, write, read = KINDS[kind]
    path, mark = tmp_path / name, tmp_path / "mark"
    write(path)
    for content in (pickle.dumps(_Bomb(mark)), _torch_bytes(_Bomb(mark), tmp_path / "t.pt")):
        path.write_bytes(content)
        with pytest.raises(SteeringError):
            read(path)
    assert not mark.exists()


def _torch_bytes(value: Any, path: Path) -> bytes:
    torch.save(value, path)
    return path.read_bytes()


def _safetensors(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    ("form", "shapes"),
    [
        ("local_weight", {"dW": [10**13, 0], "db": [0]}),
        ("local_weight", {"dW": [0, 10**13], "db": [0]}),
        ("lora", {"A": [2, 2], "B": [10**13, 0]}),
        ("lora", {"A": [0, 10**13], "B": [2, 2]}),
        ("lora", {"A": [2, 2], "B": [2, 1]}),
        ("vector", {"db": [0]}),
        ("vector", {"db": [2, 2]}),
        ("vector", {"dW": [2]}),
        ("local_weight", {"dW": [2, 2]}),
        ("nonsense", {"db": [2]}),
        (["list"], {"db": [2]}),
    ],
)
def test_shapes_that_contradict_each_other(tmp_path: Path, form: Any, shapes: dict[str, list[int]]) -> None:
    """Whole files with shapes that would ask for terabytes if they were believed before they were checked."""
    described = {
        "format_version": 1, "form": form, "site": {"layer": 1, "component": "residual"},
        "positions": {"rule": "all", "prefix": 0}, "model": {}, "origin": {},
    }  # fmt: skip
    empty = {name: torch.zeros(shape) for name, shape in shapes.items()}
    header: dict[str, Any] = {"__metadata__": {"easyedit_split": sealed(described, empty)}}
    offset = 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    _safetensors(tmp_path / "layer_1.safetensors", header, bytes(offset))
    with pytest.raises(SteeringError):
        SteeringArtifact.load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    write_tensors(tmp_path / "t", {"db": torch.tensor([1.0, value])}, {})
    with pytest.raises(SteeringError, match="not finite"):
        read_tensors(tmp_path / "t")


def test_a_declared_size_is_not_believed(tmp_path: Path) -> None:
    header = {"db": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    _safetensors(tmp_path / "t", header, bytes(16))
    with pytest.raises(SteeringError, match="is broken"):
        read_tensors(tmp_path / "t")
    (tmp_path / "t").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(SteeringError, match="is broken"):
        read_tensors(tmp_path / "t")


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    """A site with a path in its component, or a layer that is no number, names no file outside."""
    artifact = noisy(tiny_model("qwen2"), "vector", "residual")
    artifact.save(tmp_path / "a")
    file = tmp_path / "a/layer_1.safetensors"
    tensors, header = read_tensors(file)
    for site in ({"layer": "../../x", "component": "residual"}, {"layer": 1, "component": 7}, {"layer": None}, "x"):
        write_tensors(file, tensors, {**header, "site": site})
        with pytest.raises(SteeringError, match="is broken"):
            SteeringArtifact.load(file)
    write_tensors(file, tensors, {**header, "site": {"layer": -1, "component": "../../etc"}})
    loaded = SteeringArtifact.load(file)
    with pytest.raises(SteeringError):
        loaded.attach(tiny_model("qwen2"), 1.0)
    loaded.save(tmp_path / "b")
    assert {p.name for p in (tmp_path / "b").iterdir()} <= {"layer_-1.safetensors", "layer_-1.pt"}
