"""The plugin knows the vLLM it hangs into, and leaves any other alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from easyedit_split.errors import ConfigError
from easyedit_split.serving.internals import EVERYWHERE, SECOND_RUNNER, TESTED, Hook, check_version


def _sum(a: int, b: int) -> int:
    return a + b


def test_a_hook_is_known_by_its_parameters() -> None:
    assert Hook(f"{__name__}:_sum", ("a",)).is_known() and Hook(f"{__name__}:_sum", ("a", "b")).is_known()
    assert not Hook(f"{__name__}:_sum", ("b", "a")).is_known()
    assert not Hook(f"{__name__}:_gone", ()).is_known()
    assert not Hook("no_such_module:_sum", ()).is_known()


def test_wrapping_twice_is_wrapping_once() -> None:
    hook = Hook(f"{__name__}:_sum", ("a", "b"))
    before = _sum
    try:
        for _ in range(2):
            hook.wrap(lambda f: lambda a, b: 10 * f(a, b))
        assert _sum(1, 2) == 30
    finally:
        globals()["_sum"] = before


@pytest.mark.parametrize("version", ["0.33.0", "0.31.9", "1.0.0", "0.32.0rc1", "dev"])
def test_an_unknown_version_is_refused_in_one_sentence(version: str) -> None:
    with pytest.raises(ConfigError, match=f"vLLM {version} is unknown.*tested with {TESTED[0]}"):
        check_version(version)


@pytest.mark.vllm
def test_this_vllm_is_known() -> None:
    import vllm

    check_version(vllm.__version__)
    assert all(hook.is_known() for hook in (*EVERYWHERE, *SECOND_RUNNER))


@pytest.mark.vllm
def test_an_unknown_vllm_runs_as_it_was_and_takes_no_artifacts() -> None:
    code = """
import vllm
vllm.__version__ = "0.99.0"
from vllm.v1.engine.core import EngineCore
before = EngineCore.preprocess_add_request
from easyedit_split.serving.plugin import register
register()
assert EngineCore.preprocess_add_request is before
from vllm.config import VllmConfig
VllmConfig()
try:
    VllmConfig(additional_config={"easyedit_split": {}})
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "vLLM 0.99.0 is unknown to this plugin, which was tested with" in done.stdout, done.stderr[-2000:]
