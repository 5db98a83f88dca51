"""Fixtures for the files that run inside a real EasyEdit; nothing is imported before one of them is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host.processes import HOMES


@pytest.fixture(scope="module", params=HOMES, ids=[home.name for home in HOMES])
def home(request: pytest.FixtureRequest) -> Path:
    """Each checkout that EASYEDIT_HOME names."""
    if not (request.param / "steer" / "__init__.py").is_file():
        pytest.fail(f"EASYEDIT_HOME names {request.param}, which holds no folder 'steer'")
    return request.param.resolve()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from host.models import make_models

    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from host.inside import CHECKOUT
    from host.models import make_workplace

    place = make_workplace(tmp_path_factory.mktemp("work") / "place", CHECKOUT)
    os.chdir(place)
    return place


@pytest.fixture(scope="session")
def wrappers(folders: dict[str, Path], workplace: Path) -> dict[str, Any]:
    from host.inside import general, host_module

    get_model = host_module("steer.models.get_model").get_model
    return {name: get_model(general(folder))[0] for name, folder in folders.items()}


@pytest.fixture
def wrapper(request: pytest.FixtureRequest, wrappers: dict[str, Any]) -> Iterator[Any]:
    """A wrapper of the shape asked for, without steering before and after."""
    chosen = wrappers[getattr(request, "param", "tiny-qwen2")]
    chosen.reset_all()
    yield chosen
    chosen.reset_all()
