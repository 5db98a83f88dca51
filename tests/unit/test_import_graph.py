"""Dependencies point inwards: what each part loads, asked of a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import easyedit_split

PACKAGE = Path(easyedit_split.__file__).parent
HEAVY = ("torch", "transformers", "numpy", "scipy", "pyarrow", "matplotlib", "peft", "datasets", "yaml", "steer")
SOURCES = sorted(PACKAGE.rglob("*.py"))


def _loaded(statement: str) -> set[str]:
    """Heavy modules loaded by `statement` in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*sorted(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


def _imports(path: Path) -> set[str]:
    """Top-level names imported anywhere in a file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    "statement",
    [
        "import easyedit_split; dir(easyedit_split); easyedit_split.errors",
        "import easyedit_split.easyedit",
        "import easyedit_split.cli; import easyedit_split.commands",
        "from easyedit_split import PreferencePair, load_pairs, TrainConfig, load_hparams",
        "from easyedit_split.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from easyedit_split.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_a_light_import_loads_nothing_heavy(statement: str) -> None:
    assert not _loaded(statement)


@pytest.mark.parametrize("arguments", [["lerning_rate=1"], ["train_data=no.jsonl", "output_dir=x"]])
def test_a_mistake_is_told_before_torch_is_loaded(arguments: list[str]) -> None:
    loaded = _loaded(f"from easyedit_split.cli import main; assert main(['train', *{arguments!r}]) == 2")
    assert loaded <= {"yaml"}


def test_the_analysis_never_loads_torch() -> None:
    names = sorted(f"easyedit_split.analysis.{p.stem}" for p in (PACKAGE / "analysis").glob("*.py"))
    loaded = _loaded("import " + ", ".join(n.removesuffix(".__init__") for n in names))
    assert not loaded & {"torch", "transformers", "steer", "peft", "datasets"}
    for path in (PACKAGE / "analysis").glob("*.py"):
        assert not _imports(path) & {"torch", "transformers", "steer"}, path


def test_a_sweep_is_read_and_analysed_without_torch(tmp_path: Path) -> None:
    statement = (
        "import numpy as np; from easyedit_split import SweepTable\n"
        "ones = np.ones((2, 3)); t = np.ones(3)\n"
        f"SweepTable(np.arange(2.0), ones, 2 * ones, 'sum', t, t).save({str(tmp_path / 's.parquet')!r})\n"
        f"SweepTable.load({str(tmp_path / 's.parquet')!r}).preference()"
    )
    assert _loaded(statement) <= {"numpy", "scipy", "pyarrow"}


def test_the_objectives_load_torch_and_nothing_else() -> None:
    assert _imports(PACKAGE / "objectives.py") <= {"__future__", "dataclasses", "typing", "torch"}
    assert "transformers" not in _loaded("import easyedit_split.objectives")


def test_only_the_border_knows_steer() -> None:
    for path in SOURCES:
        if PACKAGE / "easyedit" not in path.parents:
            assert "steer" not in _imports(path), path
    assert "steer" not in _loaded("import easyedit_split.easyedit, easyedit_split.trainer, easyedit_split.sweeps")


def test_every_public_name_exists_and_an_unknown_one_does_not() -> None:
    for name in easyedit_split.__all__:
        assert getattr(easyedit_split, name) is not None
    assert set(easyedit_split.__all__) <= set(dir(easyedit_split))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = easyedit_split.trian  # type: ignore[attr-defined]


@pytest.mark.parametrize("inner", ["errors", "deltas", "sites", "objectives", "pairs", "positions", "analysis"])
def test_inner_modules_do_not_know_the_outer_ones(inner: str) -> None:
    outer = ("cli", "commands", "easyedit", "trainer", "training", "demo")
    paths = [PACKAGE / f"{inner}.py"] if (PACKAGE / f"{inner}.py").exists() else list((PACKAGE / inner).glob("*.py"))
    assert paths
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not set(node.module.split(".")) & set(outer), f"{path}: {node.module}"
