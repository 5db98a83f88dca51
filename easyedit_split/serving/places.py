"""Where a site of an artifact lies in vLLM's model: the module, and this process's part of its output and input.

vLLM joins maps that Hugging Face keeps apart (`qkv_proj`, `gate_up_proj`) and splits large ones over processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    LinearBase,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from vllm.model_executor.models.utils import PPMissingLayer

from ..errors import SiteError
from ..models.architectures import GATE_UP, QKV, fused_modules, module_names
from ..models.parts import submodule
from .catalogue import Served, ServedPart

_LISTS = ("layers", "h", "blocks")


@dataclass(frozen=True)
class Place:
    """`rows` of the module's output belong to the site here (None: a block, whose whole output it is).

    `of_rows` and `of_columns` say which part of the change this process adds, `adds_bias` whether it adds `db`.
    """

    module: nn.Module
    rows: slice
    of_rows: slice = field(default_factory=lambda: slice(None))
    of_columns: slice = field(default_factory=lambda: slice(None))
    adds_bias: bool = True

    def own_part(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The part of a change (`LinearDelta.tensors`) that this process adds."""
        cut = {"db": (self.of_rows,), "B": (self.of_rows,), "A": (slice(None), self.of_columns),
               "dW": (self.of_rows, self.of_columns)}  # fmt: skip
        return {key: t[cut[key]].clone() for key, t in tensors.items() if key != "db" or self.adds_bias}


def find_place(model: nn.Module, served: Served, part: ServedPart, layers: int) -> Place | None:
    """The place of a part of an artifact; None where its block is on another pipeline stage.

    Raises:
        SiteError: no such block or map, or the change does not fit it.
    """
    block = _blocks(model, layers)[part.layer]
    if isinstance(block, PPMissingLayer):
        return None
    if part.component == "residual":
        return Place(block, slice(None))
    for path in module_names(part.component):
        module = submodule(block, path)
        if isinstance(module, LinearBase):
            return _whole(module, served, part)
    for group in (QKV, GATE_UP):
        if part.component in group:
            for path in (*fused_modules(part.component, str(served.model.get("architecture"))), *_joined(group)):
                module = submodule(block, path)
                if isinstance(module, LinearBase):
                    return _part(module, group.index(part.component), len(group), served, part)
    linears = [name for name, module in block.named_modules() if isinstance(module, LinearBase)]
    raise SiteError(
        f"artifact {served.name!r} is for {part.component!r}, and block {part.layer} of {type(model).__name__} has "
        f"no such map in vLLM: it has {', '.join(linears) or 'none'}"
    )


def _joined(group: Sequence[str]) -> tuple[str, ...]:
    return ("self_attn.qkv_proj", "attn.qkv_proj") if group == QKV else ("mlp.gate_up_proj",)


def _blocks(model: nn.Module, layers: int) -> nn.ModuleList:
    found = [
        module for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.split(".")[-1] in _LISTS and len(module) == layers
    ]  # fmt: skip
    if len(found) != 1:
        raise SiteError(
            f"{type(model).__name__} has {len(found)} lists of {layers} decoder blocks: it is not supported"
        )
    return found[0]


def _whole(module: LinearBase, served: Served, change: ServedPart) -> Place:
    _check_sizes(served, change, module.input_size, module.output_size)
    if isinstance(module, RowParallelLinear):
        width = module.input_size_per_partition
        mine = slice(module.tp_rank * width, (module.tp_rank + 1) * width)
        return Place(module, slice(None), of_columns=mine, adds_bias=module.tp_rank == 0)
    return Place(module, slice(None), of_rows=_own_rows(module, module.output_size))


def _part(module: LinearBase, index: int, parts: int, served: Served, change: ServedPart) -> Place:
    """One map of several that are joined in `module`."""
    sizes = getattr(module, "output_sizes", ())
    if len(sizes) != parts or not isinstance(module, (ColumnParallelLinear, ReplicatedLinear)):
        raise SiteError(f"artifact {served.name!r}: {type(module).__name__} does not join {parts} maps: not supported")
    share = module.tp_size if isinstance(module, ColumnParallelLinear) else 1
    first = sum(size // share for size in sizes[:index])
    width, rank = sizes[index] // share, module.tp_rank if share > 1 else 0
    whole = sizes[index]
    if isinstance(module, QKVParallelLinear) and index > 0:  # few key and value heads are kept by several processes
        rank //= module.num_kv_head_replicas
        whole //= module.num_kv_head_replicas
    _check_sizes(served, change, module.input_size, whole)
    return Place(module, slice(first, first + width), of_rows=slice(rank * width, (rank + 1) * width))


def _own_rows(module: LinearBase, size: int) -> slice:
    if isinstance(module, ColumnParallelLinear):
        width = size // module.tp_size
        return slice(module.tp_rank * width, (module.tp_rank + 1) * width)
    return slice(None)


def _check_sizes(served: Served, part: ServedPart, d_in: int, d_out: int) -> None:
    shapes = part.shapes
    if served.form == "vector":
        have, fits = str(shapes["db"][0]), shapes["db"] == [d_out]
    else:
        left, right = (shapes["B"], shapes["A"]) if served.form == "lora" else (shapes["dW"], shapes["dW"])
        have, fits = f"{left[0]} x {right[1]}", (left[0], right[1]) == (d_out, d_in)
    if not fits:
        raise SiteError(
            f"artifact {served.name!r} is {have} but {part.component} of this model is {d_out} x {d_in}: "
            "it was made for another model"
        )
