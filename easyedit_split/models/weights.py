"""A few numbers of every tensor of a model: enough to know it again, in another precision too, and to tell it from a
model of the same shape.

The numbers lie at fixed places. A copy in half precision, in 8 or in 4 bits has the same numbers up to its rounding,
which is known for each of them; another model has not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from .parts import decoder_layers, unwrap
from .protocols import CausalLM

NUMBERS = 4  # of each tensor
ROWS = 1024  # of the embedding that are looked at at most, a power of 2: vocabularies are enlarged at their end
FLOATS = {str(kind).removeprefix("torch."): kind for kind in
          (torch.float64, torch.float32, torch.float16, torch.bfloat16)}  # fmt: skip
PRINTED = 1e-6  # relative: numbers are kept with seven digits
TINY = 1e-7  # below this, float16 has no digits
# half the widest gap between neighbouring 4-bit codes, in units of the largest weight that shares their scale
HALF_GAP = {"nf4": 0.16, "fp4": 0.17}
WRAPPED = ("base_layer", "original_module")  # PEFT's names for what it wraps
GOLDEN = (math.sqrt(5) - 1) / 2

# modules whose weights hold a merged change: they say nothing of the model
merged: WeakSet[nn.Module] = WeakSet()
_known: WeakKeyDictionary[nn.Module, dict[int, tuple[Any, Sample]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Sample:
    """Numbers of the tensors up to a layer: `kinds` name -> how the tensor is held, `values` and `errors` name ->
    numbers and how far each may be from the unrounded one. Names are those of the plain model."""

    layer: int
    kinds: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What a header keeps; the errors of floating-point numbers follow from their kind."""
        kept = {name: errors for name, errors in self.errors.items() if self.kinds[name] not in FLOATS}
        return {"layer": self.layer, "kinds": self.kinds, "values": self.values, **({"errors": kept} if kept else {})}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Sample:
        """Raises KeyError, TypeError, ValueError where it is none."""
        kinds = {str(k): str(v) for k, v in kept["kinds"].items()}
        values = {str(k): [float(x) for x in v] for k, v in kept["values"].items()}
        given = {str(k): [float(x) for x in v] for k, v in kept.get("errors", {}).items()}
        errors = {k: _rounding(kinds[k], v) if kinds[k] in FLOATS else given[k] for k, v in values.items()}
        return cls(int(kept["layer"]), kinds, values, errors)

    def differing(self, other: Sample) -> tuple[list[str], int]:
        """Names of tensors whose numbers are not the same up to rounding, and how many were compared."""
        shared = [name for name in self.values if name in other.values]
        return [name for name in shared if not self._same(other, name)], len(shared)

    def rounded_otherwise(self, other: Sample) -> list[str]:
        """How `other` holds tensors that this sample has in another kind."""
        return sorted({other.kinds[n] for n, kind in self.kinds.items() if other.kinds.get(n, kind) != kind})

    def _same(self, other: Sample, name: str) -> bool:
        ours, theirs = self.values[name], other.values[name]
        if len(ours) != len(theirs):
            return False
        exact = self.kinds[name] == other.kinds[name] in FLOATS
        for a, b, first, second in zip(ours, theirs, self.errors[name], other.errors[name], strict=True):
            allowed = PRINTED * abs(a) if exact else first + second
            if not abs(a - b) <= allowed + 1e-30:
                return False
        return True


def sampled_weights(model: CausalLM, layer: int) -> Sample:
    """Numbers of the embedding and of every tensor of blocks 0 to `layer`.

    Taken once a model: again where a tensor was replaced, moved or written to (writing through `.data` goes unseen).
    Maps that PEFT wrapped an adapter around, and weights that hold a merged change, are left out: what they compute is
    not the plain model's.
    """
    known = _known.setdefault(unwrap(model), {})
    found = list(_tensors_up_to(model, layer))
    key = [(name, id(t), t.data_ptr(), _version(t)) for name, _, t in found]
    if layer not in known or known[layer][0] != key:
        known[layer] = key, _take(layer, found)
    return known[layer][1]


@contextmanager
def weights_present(module: nn.Module) -> Iterator[None]:
    """Inside, the module's own weights are there, if they are offloaded."""
    if not any(p.is_meta for p in module.parameters(recurse=False)):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module, "cpu"):
        yield


def _tensors_up_to(model: CausalLM, layer: int) -> Iterator[tuple[str, nn.Module, Tensor]]:
    yield from _tensors(unwrap(model).get_input_embeddings(), "embedding.")
    for number, block in enumerate(decoder_layers(model)[: layer + 1]):
        yield from _tensors(block, f"{number}.")


def _tensors(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """(name, owner, tensor) below a module."""
    wrapped = any(isinstance(getattr(module, name, None), nn.Module) for name in WRAPPED)
    if wrapped or module in merged:
        return
    for name, tensor in module._parameters.items():
        if tensor is not None:
            yield path + name, module, tensor
    for name, child in module._modules.items():
        if child is not None:
            yield from _tensors(child, f"{path}{name}.")


def _take(layer: int, tensors: list[tuple[str, nn.Module, Tensor]]) -> Sample:
    kinds: dict[str, str] = {}
    values: dict[str, Tensor] = {}
    bounds: dict[str, Tensor] = {}
    places: dict[tuple[int, torch.device], Tensor] = {}
    for name, owner, _ in tensors:
        with weights_present(owner), torch.no_grad():
            tensor = getattr(owner, name.rpartition(".")[2])
            size = _size(tensor, owner, rows=ROWS if name.startswith("embedding.") else None)
            if size is None:
                continue
            where = (size, tensor.device)
            if where not in places:
                at = [int((0.5 + k * GOLDEN) % 1 * size) for k in range(NUMBERS)]
                places[where] = torch.tensor(at, device=tensor.device)
            kinds[name], values[name], bound = _read(owner, tensor, places[where])
            if bound is not None:
                bounds[name] = bound
    found, given = _lists(values), _lists(bounds)
    errors = {n: given[n] if n in given else _rounding(kinds[n], v) for n, v in found.items()}
    return Sample(layer, kinds, found, errors)


def _size(tensor: Tensor, owner: nn.Module, rows: int | None) -> int | None:
    """How many weights the tensor holds; None where they cannot be read one by one."""
    if tensor.is_meta or not tensor.numel():
        return None
    if tensor.dtype in FLOATS.values() and type(tensor) in (Tensor, nn.Parameter):
        count = tensor.shape[0] if rows is None else min(rows, 1 << (tensor.shape[0].bit_length() - 1))
        return count * (tensor.numel() // tensor.shape[0])
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        packed = getattr(state, "packing_format_for_cpu", False) or tensor.dtype != torch.uint8
        return None if packed or state.quant_type not in HALF_GAP else math.prod(state.shape)
    return tensor.numel() if tensor.dtype == torch.int8 and _row_scales(owner, tensor) is not None else None


def _read(owner: nn.Module, tensor: Tensor, at: Tensor) -> tuple[str, Tensor, Tensor | None]:
    """(kind, numbers, errors) at places of a tensor; errors None where the kind alone says them."""
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        return _read_4bit(tensor, state, at)
    if tensor.dtype == torch.int8:
        scales = _row_scales(owner, tensor)
        assert scales is not None
        step = scales.to(tensor.device).float()[at // tensor.shape[1]] / 127
        values = torch.take(tensor.data, at).float() * step
        return "int8", values, 0.51 * step + _of_half(values)
    return str(tensor.dtype).removeprefix("torch."), torch.take(tensor.detach(), at), None


def _read_4bit(tensor: Tensor, state: Any, at: Tensor) -> tuple[str, Tensor, Tensor]:
    """bitsandbytes: two codes a byte, the first in the high half; a scale for each `blocksize` weights."""
    largest = state.absmax
    if state.nested:
        from bitsandbytes.functional import dequantize_blockwise

        largest = dequantize_blockwise(largest, state.state2) + state.offset
    byte = torch.take(tensor.data, at // 2).long()
    code = torch.where(at % 2 == 0, byte >> 4, byte & 15)
    scale = largest.float().to(tensor.device)[at // state.blocksize]
    values = state.code.to(tensor.device)[code].float() * scale
    return state.quant_type, values, HALF_GAP[state.quant_type] * scale + _of_half(values)


def _row_scales(owner: nn.Module, tensor: Tensor) -> Tensor | None:
    """bitsandbytes' largest weight of each row, before and after its first forward pass."""
    own = getattr(tensor, "SCB", None)
    return own if own is not None else getattr(getattr(owner, "state", None), "SCB", None)


def _of_half(values: Tensor) -> Tensor:
    """Quantised weights were rounded to half precision before."""
    return torch.finfo(torch.bfloat16).eps * values.abs()


def _rounding(kind: str, values: list[float]) -> list[float]:
    eps = torch.finfo(FLOATS[kind]).eps
    return [max(eps, PRINTED) * abs(v) + TINY for v in values]


def _lists(tensors: dict[str, Tensor]) -> dict[str, list[float]]:
    """Each tensor `(NUMBERS,)` as floats of seven digits; one copy a device, because a GPU has to be waited for."""
    found: dict[str, list[float]] = {}
    for device in {t.device for t in tensors.values()}:
        here = [name for name, t in tensors.items() if t.device == device]
        rows = torch.stack([tensors[name].float() for name in here]).cpu().tolist()
        found.update({name: [float(f"{x:.7g}") for x in row] for name, row in zip(here, rows, strict=True)})
    return {name: found[name] for name in tensors}


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
