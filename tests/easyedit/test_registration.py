"""Registration and repair, against a stand-in for EasyEdit (see tests/host/standin.py for what that is)."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host.standin import LAYOUTS, write_standin

from easyedit_split.easyedit import METHODS, launcher, registration
from easyedit_split.easyedit.registration import register
from easyedit_split.errors import ConfigError, HostError
from easyedit_split.settings.hyperparameters import OBJECTIVE_OF

pytest.importorskip("omegaconf", reason="the plugin needs the extra: pip install easyedit-split[easyedit]")
ROOT = Path(__file__).resolve().parents[2]


def forget_host() -> None:
    for name in [n for n in sys.modules if n == "steer" or n.startswith(("steer.", "sae_lens"))]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """`host(layout)` makes a stand-in importable; nothing of it or of the hook is left afterwards."""

    def make(layout: str) -> Path:
        root = write_standin(tmp_path / layout, layout)
        monkeypatch.syspath_prepend(str(root))
        return root

    monkeypatch.delenv("EASYEDIT_HOME", raising=False)
    forget_host()
    path = list(sys.path)
    yield make
    registration._hook.remove()
    forget_host()
    sys.path[:] = path


def registry() -> Any:
    return importlib.import_module("steer.utils.alg_dict")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["before", "after", "both"])
def test_methods_are_registered_in_every_layout_and_order(host: Callable[[str], Path], layout: str, order: str) -> None:
    host(layout)
    if order != "after":
        register()
    elif layout != "lazy":
        pytest.skip("cannot be imported before registering")
    importlib.import_module("steer.utils")
    generators = importlib.import_module("steer.vector_generators.vector_generators")
    if order != "before":
        register()
    for name in METHODS:
        assert registry().METHODS_CLASS_DICT[name]["train"].__name__ == "train"
        assert registry().METHODS_CLASS_DICT[name]["apply"].__name__ == "apply"
        shells = registry().HYPERPARAMS_CLASS_DICT[name]
        assert shells["train"](layers=[1]).alg_name == shells["apply"](layers=[1]).alg_name == name
        assert generators.REQUIRED_DATASET_METHODS.count(name) == 1
    assert registry().METHODS_CLASS_DICT["caa"]["train"]() == "generate_caa_vectors"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_are_provided_only_where_they_are_missing(host: Callable[[str], Path], layout: str) -> None:
    host(layout)
    register()
    importlib.import_module("steer.utils")
    package = importlib.import_module("steer.vector_generators")
    assert ("__getattr__" in vars(package)) is (layout == "broken")
    if layout == "broken":
        with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
            _ = package.Nonsense


def test_registering_after_a_failed_import_mends_it(host: Callable[[str], Path]) -> None:
    host("broken")
    with pytest.raises(ImportError, match="CAAHyperParams"):
        importlib.import_module("steer.utils")
    register()
    importlib.import_module("steer.utils")
    assert "split" in registry().METHODS_CLASS_DICT


def test_absent_sae_lens_is_named_when_it_is_used(host: Callable[[str], Path]) -> None:
    if importlib.util.find_spec("sae_lens") is not None:
        pytest.skip("sae_lens is installed here")
    host("eager")
    register()
    importlib.import_module("steer.utils")
    assert not [name for name in sys.modules if name.startswith("sae_lens")]
    with pytest.raises(HostError, match="pip install sae_lens"):
        importlib.import_module("steer.vector_generators.sta.sae_utils").use()


def test_host_is_found_by_the_variable(
    host: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_standin(tmp_path / "clone", "lazy")
    monkeypatch.setenv("EASYEDIT_HOME", f"{tmp_path / 'nowhere'}:{root}")
    register()
    assert "split" in registry().METHODS_CLASS_DICT


def test_host_is_found_in_the_current_folder(
    host: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(write_standin(tmp_path / "clone", "lazy"))
    register()
    assert "split" in registry().METHODS_CLASS_DICT


def test_missing_host_says_where_it_was_looked_for(
    host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYEDIT_HOME", "/no/such/clone")
    register()
    with pytest.raises(HostError, match="EASYEDIT_HOME='/no/such/clone'; clone"):
        registration.require_host()


def test_unknown_layout_is_refused(host: Callable[[str], Path]) -> None:
    root = host("eager")
    (root / "steer" / "utils" / "alg_dict.py").write_text("HYPERPARAMS_CLASS_DICT = {}\n", encoding="utf-8")
    register()
    with pytest.raises(HostError, match=r"alg_dict\.py .* a layout that is not known here"):
        importlib.import_module("steer.utils.alg_dict")


@pytest.mark.parametrize("name", ["vector_generators.vector_generators", "models.model_wrapper"])
def test_unknown_modules_are_refused(host: Callable[[str], Path], name: str) -> None:
    root = host("lazy")
    (root / "steer" / (name.replace(".", "/") + ".py")).write_text("", encoding="utf-8")
    register()
    with pytest.raises(HostError, match="a layout that is not known here"):
        importlib.import_module(f"steer.{name}")


def method_file(path: Path, text: str = "") -> str:
    path.write_text(
        "alg_name: split\nlayers: [3]\nintervention_method: lora\n"
        f"{text}generate:\n  batch_size: 5\napply:\n  multipliers: [2.5]\n",
        encoding="utf-8",
    )
    return str(path)


def config(*files: str) -> dict[str, Any]:
    return {
        "steer_train_hparam_paths": list(files), "apply_steer_hparam_paths": list(files), "seed": 9,
        "steer_vector_output_dirs": ["out"], "steer_vector_load_dir": ["in"],
    }  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_merged_files_are_read_by_every_layout(host: Callable[[str], Path], layout: str, tmp_path: Path) -> None:
    host(layout)
    register()
    utils = importlib.import_module("steer.utils")
    cfg = config(method_file(tmp_path / "split.yaml"))
    train = utils.load_generate_vector_hparams(cfg)["split"]
    apply = utils.load_apply_vector_hparams({**cfg, "multipliers": [7.0]})["split"]
    assert (train.layers, train.intervention_method, train.batch_size) == ([3], "lora", 5)
    assert (train.seed, train.steer_vector_output_dir) == (9, "out")
    assert (apply.multipliers, apply.steer_vector_load_dir) == ([7.0], "in")  # EasyEdit's own config wins
    assert utils.load_apply_vector_hparams(cfg)["split"].multipliers == [2.5]


def test_method_files_are_strict(host: Callable[[str], Path], tmp_path: Path) -> None:
    host("lazy")
    register()
    utils = importlib.import_module("steer.utils")
    good = method_file(tmp_path / "good.yaml")
    twin, typo = method_file(tmp_path / "twin.yaml"), method_file(tmp_path / "typo.yaml", "layer: 3\n")
    with pytest.raises(ConfigError, match=r"two files of the method 'split', .*good\.yaml and .*twin\.yaml"):
        utils.load_generate_vector_hparams(config(good, twin))
    with pytest.raises(ConfigError, match=r"typo\.yaml: unknown key 'layer'; did you mean 'layers'"):
        utils.load_apply_vector_hparams(config(typo))


def test_launcher_runs_a_script_with_its_arguments(
    host: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = host("broken")
    script = root / "script.py"
    script.write_text(
        "import sys\nfrom steer.utils.alg_dict import METHODS_CLASS_DICT\n"
        "print(__name__, sys.argv[1:], 'split' in METHODS_CLASS_DICT)\n",
        encoding="utf-8",
    )
    before = list(sys.argv), list(sys.path)
    assert launcher.main([str(script), "device=cpu", "--help"]) == 0
    assert capsys.readouterr().out == "__main__ ['device=cpu', '--help'] True\n"
    assert (list(sys.argv), list(sys.path)) == before


def test_programs_that_a_script_starts_are_registered_too(
    host: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the layout that needs the repair; the environment's own sitecustomize runs as well."""
    root = host("broken")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("print('own sitecustomize')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    (root / "child.py").write_text(
        "from steer.utils.alg_dict import METHODS_CLASS_DICT\nprint('split' in METHODS_CLASS_DICT)\n", encoding="utf-8"
    )
    (root / "script.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, 'child.py'], check=True)\n", encoding="utf-8"
    )
    monkeypatch.chdir(root)
    before = os.environ["PYTHONPATH"]
    assert launcher.main(["script.py"]) == 0
    assert capfd.readouterr().out == "own sitecustomize\nTrue\n"
    assert os.environ["PYTHONPATH"] == before

    with (root / "child.py").open("a", encoding="utf-8") as file:
        file.write("raise ValueError('oops')\n")
    with pytest.raises(HostError, match="script.py stopped with CalledProcessError"):
        launcher.main(["script.py"])
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith("Traceback") and said[-2] == "ValueError: oops"
    assert said[-1].startswith("easyedit-split: child.py stopped with ValueError in ")


def test_an_error_of_a_script_is_a_sentence(host: Callable[[str], Path]) -> None:
    script = host("lazy") / "script.py"
    script.write_text("def deep():\n    raise ValueError('one\\ntwo')\ndeep()\n", encoding="utf-8")
    with pytest.raises(HostError, match=r"^script.py stopped with ValueError in .*script.py, line 2 \(one\); 'run --d"):
        launcher.main([str(script)])
    with pytest.raises(ValueError, match="one"):
        launcher.main(["--debug", str(script)])


def test_launcher_says_what_is_missing(host: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no script was named"):
        launcher.main([])
    with pytest.raises(ConfigError, match=r"'none\.py' does not exist"):
        launcher.main(["none.py"])
    script = tmp_path / "script.py"
    script.write_text("", encoding="utf-8")
    with pytest.raises(HostError, match="clone https"):
        launcher.main([str(script)])


def run_python(code: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_methods_are_those_of_the_hyper_parameters() -> None:
    assert set(METHODS) == set(OBJECTIVE_OF)


def test_every_hydra_program_pays_little_for_the_plugin(tmp_path: Path) -> None:
    """Neither torch nor EasyEdit is imported, and it takes less than 10 ms (the best of five, files in memory)."""
    pytest.importorskip("hydra")
    code = """
import sys, time
import hydra.core.plugins, hydra.plugins.search_path_plugin
times = []
for _ in range(5):
    for name in [n for n in sys.modules if n.startswith(("easyedit_split", "hydra_plugins"))]:
        del sys.modules[name]
    start = time.perf_counter()
    import hydra_plugins.easyedit_split_plugin
    times.append(time.perf_counter() - start)
print(min(times), sorted({"torch", "transformers", "numpy", "steer"} & set(sys.modules)))
"""
    seconds, _, loaded = run_python(code, tmp_path).partition(" ")
    assert loaded.strip() == "[]"
    assert float(seconds) < 0.010


def test_hydra_finds_the_plugin_and_the_files(tmp_path: Path) -> None:
    pytest.importorskip("hydra")
    code = """
import sys
from hydra import compose, initialize_config_dir
sys.argv = ["program"]
open("main.yaml", "w").write("path: ${split_hparams:demo/reviews/split_lora}\\n")
import os
with initialize_config_dir(os.getcwd(), version_base="1.2"):
    print(compose("main").path)
    print(compose("demo/reviews/split_vector").demo.reviews.alg_name)
"""
    path, name = run_python(code, tmp_path).split()
    assert path.endswith("hparams/demo/reviews/split_lora.yaml")
    assert name == "split"
