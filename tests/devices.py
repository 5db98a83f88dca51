"""Two make-believe devices, `card:0` and `card:1`, for machines that have none.

Their tensors are ordinary ones that claim to be elsewhere. Inside `Machine`, an operation on tensors of different
devices fails as it would on real ones, and every time the processor has to wait for a device's number is counted.
Importing this makes the cards known to torch for as long as the process lives: do so in one of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from torch.utils import backend_registration as registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from easyedit_split.models.parts import decoder_layers

ATEN = torch.ops.aten
CPU = torch.device("cpu")
_MOVES = {ATEN.copy_.default: 1, ATEN._to_copy.default: 0}  # position of the source
_INDEXED = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN._index_put_impl_.default)  # take indices of the processor
_WAITS = (ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.equal.default, ATEN.bincount.default)
_MATH_ATTENTION = 0


class _Guard(torch._C._acc.DeviceGuard):
    def type_(self) -> Any:
        return torch._C._autograd.DeviceType.PrivateUse1


class _Module(registration._DummyBackendModule):
    def device_count(self) -> int:
        return 2

    def _is_in_bad_fork(self) -> bool:
        return False


registration._setup_privateuseone_for_python_backend("card", _Module(), device_guard=_Guard())
torch.autograd.set_multithreading_enabled(False)  # the engine starts no thread for a second card
CARDS = torch.device("card", 0), torch.device("card", 1)


class Parameter(Tensor):
    """A tensor on a card; so named because it stands for weights, too, whose type is looked at."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> Parameter:
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=device,
        )  # fmt: skip
        made.held = held
        return made

    def tolist(self) -> list[Any]:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is ATEN.detach.default, f"{func} outside Machine"
        return Parameter(args[0].held.detach(), args[0].device)


class Machine(TorchDispatchMode):
    """Runs operations on the cards. `waits` counts, by operation, numbers that the processor asked a card for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> Machine:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=card) is made here, then moved
        return super().__enter__()

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        place = self._place(func, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        if place == CPU:
            return func(*_each(held, args), **_each(held, kwargs))
        if func is ATEN._fused_sdp_choice.default:
            return _MATH_ATTENTION
        out = func(*_each(held, args), **_each(held, kwargs))
        placed = _each(lambda value: Parameter(value, place) if isinstance(value, Tensor) else value, out)
        return return_and_correct_aliasing(func, args, kwargs, placed)

    def _place(self, func: Any, args: Any, kwargs: Any) -> torch.device:
        """Where the result goes."""
        tensors: list[Tensor] = []
        _each(lambda value: tensors.append(value) if isinstance(value, Tensor) else None, (args, kwargs))
        if func in _MOVES:
            source, place = args[_MOVES[func]].device, torch.device(kwargs.get("device") or args[0].device)
            self.waits["copy"] += source != CPU and place == CPU
            return place
        places = {t.device for t in tensors if t.ndim or t.device != CPU} or {t.device for t in tensors}
        if func in _INDEXED:
            places = {args[0].device} | (places - {CPU})
        if len(places) > 1:
            raise RuntimeError(f"{func}: tensors on {', '.join(sorted(map(str, places)))}")
        if kwargs.get("device") is not None:
            return torch.device(kwargs["device"])
        place = next(iter(places), CPU)
        self.waits[str(func)] += func in _WAITS and place != CPU
        return place


class _Spread(AlignDevicesHook):
    """Brings inputs to a module that was placed already."""

    def init_hook(self, module: nn.Module) -> nn.Module:
        return module


def held(value: Any) -> Any:
    """A card's tensor as an ordinary one; anything else as it is."""
    return value.held if isinstance(value, Parameter) else value


def _each(work: Callable[[Any], Any], value: Any) -> Any:
    """`work` done to every leaf of an operation's arguments or results."""
    if isinstance(value, (list, tuple)):
        return type(value)(_each(work, item) for item in value)
    if isinstance(value, dict):
        return {key: _each(work, item) for key, item in value.items()}
    return work(value)


def on_card(model: Any) -> Any:
    """The model, on the first card."""
    _put(model, CARDS[0])
    return model


def over_cards(model: Any, cut: int, head: int) -> Any:
    """The model as `device_map` spreads it: blocks from `cut` up and the last norm on the second card, the vocabulary
    projection on card `head` (where embeddings are tied, that is the first)."""
    blocks, projection = decoder_layers(model), model.get_output_embeddings()
    norm = next(m for n, m in model.named_modules() if n.count(".") == 1 and n.endswith(("norm", "ln_f")))
    _put(model, CARDS[0])
    for module, card in ((blocks[cut:], 1), (norm, 1), (projection, head)):
        _put(module, CARDS[card])
    for i, block in enumerate(blocks):
        add_hook_to_module(block, _Spread(execution_device=CARDS[i >= cut]))
    add_hook_to_module(norm, _Spread(execution_device=CARDS[1]))
    add_hook_to_module(projection, _Spread(execution_device=CARDS[head]))
    add_hook_to_module(model, _Spread(execution_device=CARDS[0], io_same_device=True))
    return model


def _put(module: nn.Module, device: torch.device) -> None:
    for part in module.modules():
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else Parameter(held(value), device)
        for name, weight in part._parameters.items():
            if weight is not None:
                moved = Parameter(held(weight.detach()), device)
                part._parameters[name] = nn.Parameter(moved, requires_grad=False)
