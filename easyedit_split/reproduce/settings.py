"""What a grid run is: a folder of hyper-parameter files, and the numbers every cell shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, nearest
from ..evaluation.rubrics import AXBENCH_RUBRICS
from ..models.gguf_weights import SMOLLM2
from ..settings.meanings import MEANINGS
from ..settings.shipped import ANY, hparams_root

# folder under hparams/ -> the model it is for
MODELS = {
    "demo": "demo",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-2b-it": "google/gemma-2-2b-it",
    "qwen2.5-7b-instruct": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2.5-0.5b-instruct": "Qwen/Qwen2.5-0.5B-Instruct",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "smollm2-135m-instruct": "smollm2",
}
_FILES_OF = {SMOLLM2: "smollm2-135m-instruct"}
# data set -> its scores: accuracy, or the rubrics of a judge; other data sets have AxBench's
METRICS: dict[str, tuple[str, ...]] = {
    "traits": ("accuracy",),
    "psychopathy": ("accuracy",),
    "powerseeking": ("power_seeking",),
}
STRENGTHS = ("recommended", "grid")
JUDGES = ("auto", "demo", "api", "none")
# the micro-world is small, and its grid has to end within minutes
_DEMO = {
    "n_train": 64, "n_held_out": 16, "n_test": 32, "n_train_sweep": 12, "points": 21, "concepts": 2,
    "max_new_tokens": 40, "strength": "grid",
}  # fmt: skip


@dataclass(frozen=True)
class GridSettings:
    """Settings of a grid run.

    `n_train`, `n_test` cap the pairs (None: as the paper splits). `n_held_out` training pairs choose the strength and
    are not trained on; `n_train_sweep` of the trained ones are swept for the fit that the test pairs check. `points`:
    strengths of a sweep, placed by each change's own reach unless `factors` says them. `strength`: how that of the
    score table is chosen on held-out pairs, `"recommended"` by the fitted law for a loss of `budget` nats of utility,
    or `"grid"` by the scores of texts at several strengths. `concepts`: at most so many of a data set with several.
    `layers`: wins over the files'; one layer, or several where the files say `joint: true`.

    Raises:
        ConfigError: a number out of its range.
    """

    folder: str
    output_dir: str = ""
    model_name_or_path: str = ""
    data_dir: str = ""
    layers: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    split_seed: int = 42
    n_train: int | None = None
    n_held_out: int = 64
    n_test: int | None = None
    n_train_sweep: int = 64
    concepts: int = 10
    points: int = 41
    factors: tuple[float, ...] = ()
    strength: str = "recommended"
    budget: float = 1.0
    n_boot: int = 200
    max_new_tokens: int = 128
    judge: str = "auto"
    dtype: str = "float32"
    device: str = "cpu"
    device_map: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", _whole_numbers("seeds", self.seeds))
        object.__setattr__(self, "layers", _whole_numbers("layers", self.layers))
        object.__setattr__(self, "factors", tuple(float(f) for f in _listed(self.factors)))
        if not self.seeds:
            raise ConfigError("seeds is empty: give one or more, as in seeds=[0,1,2]")
        for name in ("n_held_out", "n_train_sweep", "concepts", "n_boot", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is out of range: give 1 or more")
        for name in ("n_train", "n_test"):
            if getattr(self, name) is not None and getattr(self, name) < 2:
                raise ConfigError(f"{name} = {getattr(self, name)} is out of range: give 2 or more, or leave it out")
        if self.points < 15 and not self.factors:
            raise ConfigError(f"points = {self.points} is too few to fit the law: give 15 or more")
        if self.budget < 0:
            raise ConfigError(f"budget = {self.budget} is out of range: give 0 or more nats")
        if self.strength not in STRENGTHS:
            raise ConfigError(f"strength {self.strength!r} is unknown{nearest(self.strength, STRENGTHS)}")
        if self.device_map is not None and not isinstance(self.device_map, str):
            raise ConfigError(f"device_map = {self.device_map!r}: a grid takes a word, as in device_map=auto")
        if self.judge not in JUDGES:
            raise ConfigError(f"judge {self.judge!r} is unknown{nearest(self.judge, JUDGES)}")

    @property
    def model_label(self) -> str:
        """The model's name in titles and folders: that of its files, or of the model where the files serve any."""
        label = Path(self.folder).name
        return Path(self.model_name_or_path).name if label == ANY and self.model_name_or_path else label

    @property
    def model(self) -> str:
        """What to load.

        Raises:
            ConfigError: the folder is not one of ours and no model is named.
        """
        found = self.model_name_or_path or MODELS.get(self.model_label, "")
        if not found:
            raise ConfigError(f"no model is known for {self.model_label!r}: set model_name_or_path=FOLDER_OR_HUB_ID")
        return found

    @property
    def output(self) -> Path:
        return Path(self.output_dir or f"runs/reproduce-{self.model_label}")


def metrics(dataset: str) -> tuple[str, ...]:
    """The scores of a data set: `("accuracy",)`, or rubrics."""
    return METRICS.get(dataset, AXBENCH_RUBRICS)


def headline(dataset: str) -> str:
    """The one score a data set is summed up by."""
    names = metrics(dataset)
    return "harmonic mean" if names == AXBENCH_RUBRICS else names[0]


def grid_settings(folder: str, values: Mapping[str, Any]) -> GridSettings:
    """Settings of a folder of hyper-parameter files, with `values` over the defaults.

    Raises:
        ConfigError: no such folder, an unknown key (the nearest is named), or a value of the wrong kind.
    """
    path = _folder(folder)
    if path is None:
        path, values = hparams_root() / ANY, {"model_name_or_path": folder, **values}
    known = {f.name for f in fields(GridSettings)} - {"folder"}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{nearest(key, known, MEANINGS)}")
    settings = GridSettings(str(path))
    if path.name == "demo":
        settings = replace(settings, **_DEMO)  # type: ignore[arg-type]
    try:
        settings = replace(settings, **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a setting of the grid is of the wrong kind ({error}): check the values given") from None
    if settings.data_dir and not Path(settings.data_dir).is_dir():
        raise ConfigError(
            f"data_dir {str(settings.data_dir)!r} is no folder: give the one that holds the paper's data sets"
        )
    return settings


def _folder(name: str) -> Path | None:
    """The folder of hyper-parameter files; None where the name is that of a model, which then has the files of any."""
    path = Path(name)
    if name == SMOLLM2 or path.suffix.lower() == ".gguf" or (path / "config.json").exists() or any(path.glob("*.gguf")):
        return hparams_root() / _FILES_OF[name] if name in _FILES_OF else None
    if path.is_dir():
        return path.resolve()
    shipped = hparams_root() / name.removeprefix("hparams/")
    if not shipped.is_dir() or shipped == hparams_root():
        names = [p.name for p in hparams_root().iterdir() if p.is_dir()]
        raise ConfigError(f"{name!r} is no folder of hyper-parameter files{nearest(Path(name).name, names)}")
    return shipped


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    items = _listed(value)
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in items):
        raise ConfigError(f"{name} = {value!r} is not a list of whole numbers of 0 or more")
    return tuple(dict.fromkeys(items))
