"""Cells on a Ray cluster of two nodes on this machine, one of which is killed when the first cell is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grids import SPLIT
from tiny import tiny_model, tiny_tokenizer

from easyedit_split.errors import ConfigError
from easyedit_split.reproduce.output import write_outputs
from easyedit_split.reproduce.results import read_result
from easyedit_split.reproduce.run import is_done, plan, run_tasks
from easyedit_split.reproduce.settings import grid_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    """A grid of seven cells on a tiny model: three forms with two seeds, and no change."""
    tiny_model("qwen2", layers=2).save_pretrained(tmp_path / "tiny-qwen2")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny-qwen2")
    for part, n in (("train", 12), ("test", 3)):
        rows = [{"question": f"{part} {i}", "matching": f"yes {i}", "not_matching": f"no {i}"} for i in range(n)]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "hparams" / "mine" / "pairs"
    folder.mkdir(parents=True)
    for form in ("vector", "lora", "local_weight"):
        (folder / f"split_{form}.yaml").write_text(SPLIT.format(folder=tmp_path, form=form), encoding="utf-8")
    values = {
        "model_name_or_path": str(tmp_path / "tiny-qwen2"), "output_dir": str(tmp_path / "out"), "seeds": [0, 1],
        "max_new_tokens": 3, "n_held_out": 4, "points": 15, "n_boot": 5, "judge": "none",
    }  # fmt: skip
    return grid_settings(str(folder.parent), values)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A cluster and its second node."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    second = made.add_node(**options)
    yield made, second
    made.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_every_cell_ends_once_though_a_node_dies(settings: Any, cluster: tuple[Any, Any]) -> None:
    from easyedit_split.reproduce.engine_ray import finished_on_ray

    made, second = cluster
    tasks = plan(settings).to_run
    assert len(tasks) == 7
    said: list[str] = []

    def say(text: str) -> None:
        if not said:
            made.remove_node(second, allow_graceful=False)
        said.append(text)

    assert run_tasks(tasks, 1, say, finished_on_ray(tasks, made.address)) == {}
    assert len(said) == len(tasks)
    assert sorted(line.split()[1] for line in said) == sorted(t.cell.key for t in tasks)
    assert all(is_done(task) for task in tasks)
    results = [read_result(task.result_file) for task in tasks]
    assert [r and r["cell"]["hparams"] for r in results] == [t.cell.hparams for t in tasks]
    assert not plan(settings).to_run
    written = write_outputs(settings, tasks, [])
    assert written.page.is_file()
    assert len(list(settings.output.glob("cells/**/result.json"))) == len(tasks)


def test_without_ray_it_says_how_to_get_it(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from easyedit_split.reproduce.engine_ray import finished_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray: pip install 'easyedit-split\[ray\]'"):
        next(finished_on_ray([], None))


def test_an_address_needs_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    from easyedit_split.cli import main

    assert main(["reproduce", "hparams/demo", "--address", "127.0.0.1:1"]) == 2
    assert "say --engine ray as well" in capsys.readouterr().err
