"""A steered model in lm-evaluation-harness itself, on tiny models and on the tiny tasks of `examples/lm_eval`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from laws import noisy

import easyedit_split as es
from easyedit_split.changes.positions import Positions
from easyedit_split.errors import ConfigError

lm_eval = pytest.importorskip("lm_eval", reason='lm-evaluation-harness is not installed: pip install -e ".[lm_eval]"')

from lm_eval.models.huggingface import HFLM  # noqa: E402

from easyedit_split.harness.lm_eval import SteeredLM  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the harness's own
TASKS = Path(__file__).parents[2] / "examples" / "lm_eval"
PAIRS = [
    ("Was it good?", " Yes, I liked it."),
    ("Say something.", " Sure!"),
    ("Why", " not"),
    ("And the food?", " Fine"),
]
M = 1.5


def saved(model: Path, folder: Path, positions: Positions | str = "all") -> Path:
    noisy(es.load_model(model)[0], "vector", positions=positions, scale=0.5).save(folder)
    return folder


def asked(pairs: list[tuple[str, str]]) -> list[Any]:
    return [SimpleNamespace(args=pair) for pair in pairs]


def by_hand(lm: Any, change: es.SteeringArtifact, pair: tuple[str, str]) -> float:
    """Log-probability of an answer with `M db` added by a hook at the positions that the rule names."""
    prompt, answer = (lm.tok_encode(text) for text in pair)
    rule = change.positions
    start = {"all": 0, "answer": len(prompt) - 1, "after_prefix": rule.prefix}[rule.rule]
    db = change.delta.bias_term()
    steered = torch.zeros(len(prompt) + len(answer), 1)
    steered[start:] = M
    hook = lm.model.model.layers[1].mlp.down_proj.register_forward_hook(lambda m, a, out: out + steered * db)
    try:
        with torch.no_grad():
            odds = lm.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    finally:
        hook.remove()
    return float(sum(odds[len(prompt) - 1 + i, token] for i, token in enumerate(answer)))


@pytest.mark.parametrize("positions", ["all", "answer", Positions("after_prefix", 3)])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_likelihood_is_the_steered_model_s(
    model: Path, tmp_path: Path, positions: Positions | str, batch_size: int
) -> None:
    folder = saved(model, tmp_path, positions)
    lm, plain = SteeredLM(str(model), str(folder), M, batch_size=batch_size), SteeredLM(str(model))
    found = [value for value, _ in lm.loglikelihood(asked(PAIRS), disable_tqdm=True)]
    expected = [by_hand(plain, es.load(folder), pair) for pair in PAIRS]
    assert found == pytest.approx(expected, rel=1e-5)
    unsteered = [value for value, _ in plain.loglikelihood(asked(PAIRS), disable_tqdm=True)]
    assert unsteered != pytest.approx(expected, rel=1e-2)


def test_a_strength_of_0_is_the_harness_s_own_model(model: Path, tmp_path: Path) -> None:
    theirs = HFLM(pretrained=str(model), device="cpu", batch_size=4)
    texts = [SimpleNamespace(args=("A text of some length, to be predicted from its start.",))]
    until = [SimpleNamespace(args=(p, {"until": ["\n"], "max_gen_toks": 12})) for p, _ in PAIRS]
    for lm in (
        SteeredLM(str(model), batch_size=4),
        SteeredLM(str(model), str(saved(model, tmp_path)), 0.0, batch_size=4),
    ):
        for ask, requests in (
            ("loglikelihood", asked(PAIRS)), ("loglikelihood_rolling", texts), ("generate_until", until)
        ):  # fmt: skip
            assert getattr(lm, ask)(requests, disable_tqdm=True) == getattr(theirs, ask)(requests, disable_tqdm=True)


@pytest.mark.parametrize("positions", ["all", "answer"])
def test_a_generation_is_the_steered_model_s(model: Path, tmp_path: Path, positions: str) -> None:
    folder = saved(model, tmp_path, positions)
    lm = SteeredLM(str(model), str(folder), M, batch_size=4)
    requests = [SimpleNamespace(args=(p, {"until": ["\x00"], "max_gen_toks": 12})) for p, _ in PAIRS]
    found = lm.generate_until(requests, disable_tqdm=True)
    plain, tokenizer = es.load_model(model)
    with es.load(folder).attach(plain, M):
        expected = es.generate(plain, tokenizer, [p for p, _ in PAIRS], max_new_tokens=12, chat=False)
    assert found == [text.split("\x00")[0] for text in expected]


def test_the_kept_strength_is_used_and_said(model: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from swept import write_sweep

    from easyedit_split.analysis.pipeline import analyse
    from easyedit_split.calibrate import calibration_of

    folder = saved(model, tmp_path / "change")
    with pytest.raises(ConfigError, match="the change keeps none: pass m"):
        SteeredLM(str(model), str(folder))
    change = es.load(folder)
    kept = calibration_of(analyse(write_sweep(change, tmp_path / "s.parquet")))
    replace(change, calibration=kept).save(folder)
    with pytest.warns(UserWarning, match="no strength given: m = 2"):
        lm = SteeredLM(str(model), str(folder))
    about = lm.get_model_info()["steering"]
    assert (about["m1"], about["id"], about["form"]) == (kept.m1, change.id, "vector")
    assert SteeredLM(str(model)).get_model_info()["steering"] == {}


def test_what_would_be_ignored_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match="m = 2.0 without artifact"):
        SteeredLM(str(model), m=2.0)
    with pytest.raises(ConfigError, match="artefact is no argument of this model; did you mean 'artifact'"):
        SteeredLM(str(model), artefact="x")
    with pytest.raises(ConfigError, match="peft is no argument of this model"):
        SteeredLM(str(model), peft="x")
    with pytest.raises(es.SteeringError, match="cannot be loaded|does not exist"):
        SteeredLM("./none")


def test_from_the_command_line(tmp_path: Path) -> None:
    """The example's tasks by `python -m`, which knows the model by its name; the results say what steered."""
    demo, _ = es.load_model("demo")
    change = noisy(demo, "lora", layer=3)
    change.save(tmp_path / "change")
    command = [
        sys.executable, "-m", "easyedit_split.harness.lm_eval", "run", "--model", "easyedit_split", "--model_args",
        "pretrained=demo,artifact=change,m=2", "--include_path", str(TASKS), "--tasks",
        "demo_reviews,demo_topic,demo_stories", "--limit", "4", "--apply_chat_template", "--output_path", "out",
    ]  # fmt: skip
    settings = {"PYTHONPATH": str(Path(es.__file__).parents[1]), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(file.read_text())
    assert set(found["results"]) == {"demo_reviews", "demo_topic", "demo_stories"}
    assert found["results"]["demo_stories"]["word_perplexity,none"] > 1
    assert found["config"]["steering"] == {
        "artifact": "change", "id": change.id, "form": "lora", "site": "layer 3, mlp.down_proj", "m1": 2, "m2": 2
    }  # fmt: skip


def test_over_several_strengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example turns one model's dial; a strength of 0 among them is the unsteered model."""
    monkeypatch.syspath_prepend(str(TASKS))
    import over_m

    noisy(es.load_model("demo")[0], "vector", layer=3, scale=2.0).save(tmp_path)
    monkeypatch.setattr(over_m, "STRENGTHS", (0.0, 4.0, 0.0))
    over_m.main(str(tmp_path))
    first, steered, again = (line.split() for line in capsys.readouterr().out.splitlines()[-3:])
    assert first == again and first[0] == "0" and steered[0] == "4"
    assert float(steered[3]) > 1.1 * float(first[3])  # word perplexity under noise
