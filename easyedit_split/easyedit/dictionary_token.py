"""The object that stands in EasyEdit's `intervention_dict` for a change attached at the linear layer itself.

EasyEdit adds interventions at the block's output, which on Gemma-2 is behind a norm and so not Eq. 4.
Our hook sits on the linear layer, where EasyEdit cannot see it.
The token is what EasyEdit sees: it changes nothing itself, and the hook acts only while the dictionary holds this
very token, so whatever EasyEdit does to its dictionary switches our steering off and on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class SteeringToken:
    """One attached change of one method in one block.

    `detach` removes the hook for good. Taking the token out of the dictionary only switches it off:
    EasyEdit's `ori_generate` does that for a while.
    """

    intervention_method = "easyedit_split"

    def __init__(self, name: str, block: Any) -> None:
        self.name = name
        self._block = block
        self._detach: list[Callable[[], None]] = []

    def forward(self, base: Any, **kwargs: Any) -> Any:
        """The block's output, unchanged: the change was made at the linear layer."""
        return base

    def to(self, *args: Any, **kwargs: Any) -> SteeringToken:
        """Nothing to move: the change follows the layer it sits on."""
        return self

    def is_active(self) -> bool:
        """Whether EasyEdit's dictionary holds this very token now."""
        return self._block.intervention_dict.get(self.name) is self

    def on_detach(self, function: Callable[[], None]) -> None:
        """Call `function` when the change is taken off for good."""
        self._detach.append(function)

    def detach(self) -> None:
        """Remove the hooks; idempotent."""
        while self._detach:
            self._detach.pop()()

    def __deepcopy__(self, memo: dict[int, Any]) -> SteeringToken:
        return self


def block_tokens(block: Any) -> dict[str, SteeringToken]:
    """Our tokens in one wrapped block, by method name."""
    return {name: value for name, value in block.intervention_dict.items() if isinstance(value, SteeringToken)}


@contextmanager
def take_away_tokens(blocks: Iterable[Any]) -> Iterator[None]:
    """Switch our steering off inside the `with`, and on again after it; other interventions are left alone."""
    taken = [(block, block_tokens(block)) for block in list(blocks)]
    for block, tokens in taken:
        for name in tokens:
            del block.intervention_dict[name]
    try:
        yield
    finally:
        for block, tokens in taken:
            block.intervention_dict.update(tokens)
