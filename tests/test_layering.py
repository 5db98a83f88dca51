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
    assert _imports(PACKAGE / "training" / "objectives.py") <= {"__future__", "dataclasses", "typing", "torch"}
    assert "transformers" not in _loaded("import easyedit_split.training.objectives")


def test_only_the_border_knows_steer() -> None:
    for path in SOURCES:
        if PACKAGE / "easyedit" not in path.parents:
            assert "steer" not in _imports(path), path
    assert "steer" not in _loaded(
        "import easyedit_split.easyedit, easyedit_split.training.trainer, easyedit_split.sweeps.run"
    )


def test_every_public_name_exists_and_an_unknown_one_does_not() -> None:
    for name in easyedit_split.__all__:
        assert getattr(easyedit_split, name) is not None
    assert set(easyedit_split.__all__) <= set(dir(easyedit_split))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = easyedit_split.trian  # type: ignore[attr-defined]


# from the ground up: a wing may import those before it in the list, and `errors`, `lazy`, `distributed`
FLOORS = (
    "storage", "demo", "data", "models", "changes", "scoring", "settings", "training", "analysis", "sweeps",
    "folders", "generation", "texts", "calibrate", "formats", "evaluation", "run_folder", "reproduce", "easyedit",
    "importing", "harness", "serving", "dial", "commands", "cli",
)  # fmt: skip
WRITERS = {"analysis.report", "analysis.canvas"}  # pages and pictures, written whole or not at all
# a lazy import upwards: an artifact is the front door to `formats` (its fixed interface has `to_peft`, `from_hub`)
FRONT_DOORS = {
    ("changes.artifact", "formats.peft"),
    ("changes.artifact", "formats.hub"),
    ("changes.artifact", "sweeps.table"),  # the type alone
}


def _modules() -> dict[str, Path]:
    found = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in SOURCES}
    return {name.removesuffix(".__init__"): path for name, path in found.items() if name != "__init__"}


def _inner_imports(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of this package that a module imports anywhere, inside functions and for type checking too."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            source = ".".join(part for part in base if part)
            for alias in node.names:
                whole = f"{source}.{alias.name}" if source else alias.name
                found.add(whole if whole in modules else source)
    return found & set(modules)


def _imports_of_all() -> dict[str, set[str]]:
    modules = _modules()
    return {name: _inner_imports(name, path, modules) - {name} for name, path in modules.items()}


def test_no_circle_of_imports_lazy_ones_counted() -> None:
    left = _imports_of_all()
    while True:
        free = {name for name, needed in left.items() if not needed & set(left)}
        if not free:
            break
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left, f"in or above a circle: {sorted(left)}"


def test_a_wing_knows_those_below_it_only() -> None:
    for name, needed in _imports_of_all().items():
        wing = name.split(".")[0]
        if wing not in FLOORS:
            assert wing in {"errors", "lazy", "distributed", "__main__"}, f"{name}: give it a floor"
            continue
        for other in needed:
            above = other.split(".")[0]
            if above in FLOORS and (name, other) not in FRONT_DOORS:
                assert FLOORS.index(above) <= FLOORS.index(wing), f"{name} imports {other}, which is above it"


def test_the_analysis_and_the_objectives_know_neither_models_nor_files() -> None:
    for name, needed in _imports_of_all().items():
        if name.startswith("analysis") or name == "training.objectives":
            assert {other.split(".")[0] for other in needed} <= {"analysis", "errors", "lazy", "storage"}, name
            assert not {o for o in needed if o.startswith("storage")} or name in WRITERS, name


def test_only_serving_knows_vllm() -> None:
    for path in SOURCES:
        if PACKAGE / "serving" not in path.parents:
            assert "vllm" not in _imports(path), path


def test_only_the_harness_knows_other_benchmarks() -> None:
    for path in SOURCES:
        if PACKAGE / "harness" not in path.parents:
            assert not _imports(path) & {"lm_eval", "inspect_ai"}, path
    assert "torch" not in _imports(PACKAGE / "harness" / "inspect_registry.py")
