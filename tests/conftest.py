"""What every test shares: one thread, no network, and tiny models that must be found again as they were lent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(Path(__file__).parent))

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

_MODELS: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {}


def hooks_of(model: Any) -> list[str]:
    """Names of the modules that carry a forward hook of any kind."""
    return [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks]


@pytest.fixture
def lend() -> Iterator[Callable[[str], Any]]:
    """`lend(kind)`: a tiny model, built once a run.

    Afterwards its weights, hooks, mode and flags must be those it was lent with, bit for bit.
    """
    from tiny import tiny_model

    lent: set[str] = set()

    def one(kind: str) -> Any:
        if kind not in _MODELS:
            model = tiny_model(kind)
            _MODELS[kind] = model, {k: v.clone() for k, v in model.state_dict().items()}
        lent.add(kind)
        return _MODELS[kind][0]

    yield one
    for kind in lent:
        model, before = _MODELS[kind]
        after = model.state_dict()
        unchanged = after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)
        left = hooks_of(model)
        flags = any(m.training for m in model.modules()) or any(p.requires_grad for p in model.parameters())
        if not unchanged or left or flags:
            del _MODELS[kind]
        assert unchanged, f"{kind}: the test changed the weights"
        assert not left, f"{kind}: hooks left at {left}"
        assert not flags, f"{kind}: train mode or requires_grad left behind"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser, started once a module; skips where there is none."""
    from browser import start

    driver = start(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub on the loopback address (`hub_server.Hub`), which huggingface_hub takes for the real one."""
    from hub_server import hub_server
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    monkeypatch.setenv("HF_TOKEN", "of-the-test")
    with hub_server() as server:
        for name, value in (
            ("ENDPOINT", server.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_OFFLINE", False),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
        ):
            monkeypatch.setattr(constants, name, value)
        yield server
