"""Teach EasyEdit's model wrappers our method names, so that they clear what we attach.

EasyEdit clears a method in `BlockOutputWrapper.reset`, `BaseModelWrapper.reset` and `GPTWrapper.reset`, which know a
fixed list of names; and `ori_generate` of the older commits leaves interventions on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from ..errors import HostError
from .dictionary_token import block_tokens, take_away_tokens

_MARK = "_taught_by_easyedit_split"


def teach(module: ModuleType, methods: Sequence[str]) -> None:
    """Wrap the reset and `ori_generate` functions of `steer.models.model_wrapper`, once.

    Raises:
        HostError: the module lacks the classes this package knows.
    """
    missing = [name for name in ("BlockOutputWrapper", "BaseModelWrapper") if not hasattr(module, name)]
    if missing:
        raise HostError(
            f"{module.__file__} has no class {missing[0]}, so this EasyEdit has a layout that is not known here; "
            "use one of the commits named in docs/upstreaming.md."
        )
    _wrap(module.BlockOutputWrapper, "reset", lambda original: _block_reset(original, methods))
    for name in ("BaseModelWrapper", "GPTWrapper"):
        wrapper = getattr(module, name, None)
        if wrapper is not None:
            _wrap(wrapper, "reset", lambda original: _model_reset(original, methods))
            _wrap(wrapper, "ori_generate", _original_generate)


def _wrap(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = vars(owner).get(name)
    if original is None or getattr(original, _MARK, False):
        return
    wrapped = functools.wraps(original)(make(original))
    setattr(wrapped, _MARK, True)
    setattr(owner, name, wrapped)


def _block_reset(original: Callable[..., Any], methods: Sequence[str]) -> Callable[..., Any]:
    def reset(self: Any, method_name: str = "all") -> Any:
        tokens = block_tokens(self)
        result = original(self, method_name)
        for name, token in tokens.items():
            if method_name in ("all", name) and name in methods:
                self.intervention_dict.pop(name, None)
                token.detach()
        return result

    return reset


def _model_reset(original: Callable[..., Any], methods: Sequence[str]) -> Callable[..., Any]:
    def reset(self: Any, method_name: str) -> Any:
        from .host import wrapped_blocks

        if method_name.lower() not in methods:
            return original(self, method_name)
        blocks: Any = wrapped_blocks(self)
        for block in blocks:
            block.reset(method_name=method_name.lower())
        return None

    return reset


def _original_generate(original: Callable[..., Any]) -> Callable[..., Any]:
    def ori_generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        from .host import wrapped_blocks

        with take_away_tokens(wrapped_blocks(self)):
            return original(self, *args, **kwargs)

    return ori_generate
