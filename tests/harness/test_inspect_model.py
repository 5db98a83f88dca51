"""A steered model in Inspect itself, on a tiny model and on the tiny task of `examples/inspect`."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from laws import noisy

import easyedit_split as es
from easyedit_split.errors import ConfigError

pytest.importorskip("inspect_ai", reason='Inspect is not installed: pip install -e ".[inspect]"')

import inspect_ai.model as inspect_model  # noqa: E402

import easyedit_split.harness.inspect_registry  # noqa: E402, F401  # as the entry point does

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Inspect's own, and those of what it needs
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
QUESTIONS = ["Was it good?", "Say something.", "Why?", "And the food, was it to your taste?"]
EXAMPLES = Path(__file__).parents[2] / "examples" / "inspect"


@pytest.fixture(autouse=True)
def swept_up() -> Iterator[None]:
    """Streams that Inspect leaves open are closed before other tests run, whose warnings are errors."""
    yield
    gc.collect()


def answers(name: str, model: Path, **arguments: Any) -> list[str]:
    """Greedy answers to all questions at once, by a provider of Inspect."""
    config = inspect_model.GenerateConfig(max_tokens=12)
    found = inspect_model.get_model(f"{name}/{model}", config=config, memoize=False, do_sample=False, **arguments)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(found.generate(question) for question in QUESTIONS))

    return [output.completion for output in asyncio.run(ask())]


@pytest.mark.parametrize("positions", ["all", "answer"])
def test_the_answers_are_the_steered_model_s(model: Path, tmp_path: Path, positions: str) -> None:
    plain, tokenizer = es.load_model(model)
    change = noisy(plain, "local_weight", positions=positions)
    change.save(tmp_path)
    found = answers("easyedit_split", model, artifact=str(tmp_path), m=1.5)
    with change.attach(plain, 1.5):
        expected = es.generate(plain, tokenizer, QUESTIONS, max_new_tokens=12)
    assert found == expected
    unsteered = answers("hf", model, model_path=str(model))
    assert unsteered != expected
    assert answers("easyedit_split", model, artifact=str(tmp_path), m=0) == unsteered
    assert answers("easyedit_split", model) == unsteered


def test_mistakes(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="m = 2 without artifact"):
        answers("easyedit_split", model, m=2)
    noisy(es.load_model(model)[0], "vector").save(tmp_path)
    with pytest.raises(ConfigError, match="the change keeps none: pass m"):
        answers("easyedit_split", model, artifact=str(tmp_path))


def test_inspect_is_told_of_the_provider() -> None:
    try:
        installed = importlib.metadata.distribution("easyedit-split")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is imported, not installed")
    if installed.version != es.__version__:
        pytest.skip(f"version {installed.version} is installed, {es.__version__} is imported")
    (entry,) = installed.entry_points.select(group="inspect_ai")
    assert entry.load() is sys.modules["easyedit_split.harness.inspect_registry"]


def test_the_example_s_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect_ai

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from reviews import demo_reviews

    noisy(es.load_model("demo")[0], "vector", layer=3, scale=0.0).save(tmp_path / "change")
    (log,) = inspect_ai.eval(
        demo_reviews(questions=8), model="easyedit_split/demo", display="none", log_dir=str(tmp_path / "logs"),
        model_args={"artifact": str(tmp_path / "change"), "m": 2, "do_sample": False}, max_tokens=64,
    )  # fmt: skip
    assert log.status == "success" and log.results is not None
    found = {score.name: score.metrics["mean"].value for score in log.results.scores}
    assert found["fluent"] == 2.0 and 0.0 <= found["happy"] <= 2.0  # a change of nothing: whole reviews of both kinds
