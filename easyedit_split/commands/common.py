"""What the commands share: an hparams file with `key=value` overrides, loading what it names, printing tables."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.pairs import PreferencePair, by_concept, flat_pairs
from ..errors import ArtifactError, ConfigError
from ..settings.files import flatten_sections, hyperparameters, read_yaml
from ..settings.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from ..analysis.budget import Budget
    from ..analysis.pipeline import Analysis
    from ..changes.artifact import SteeringArtifact
    from ..changes.calibration import Calibration
    from ..formats.hub import Place
    from ..sweeps.table import SweepTable

WHERE = "the folder that train wrote, or OWNER/NAME or OWNER/NAME@REVISION on the hub"
FAR = 10.0  # times the largest trained factor


def hparams_options(parser: argparse.ArgumentParser) -> None:
    """`[HPARAMS.yaml] [key=value …]`."""
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="HPARAMS.yaml|key=value",
        help="a hyper-parameter file, and keys that win over it (layers=3 lr=0.02 train_data=pairs.csv)",
    )


def checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint-seconds S`."""
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="keep progress on disk this often, to go on after a crash (default 20)",
    )


def any_model_option(parser: argparse.ArgumentParser) -> None:
    """`--any-model`."""
    parser.add_argument("--any-model", action="store_true", help="accept other weights than the change was made for")


def given_keys(arguments: argparse.Namespace) -> list[str]:
    """Keys that were given on the command line itself."""
    return [item.partition("=")[0] for item in arguments.settings if "=" in item]


def settings(arguments: argparse.Namespace) -> Hyperparameters:
    """The file's keys (of a shipped name such as `demo/reviews/split_vector` too), then the overrides.

    Raises:
        ConfigError: more than one file, not YAML, an unknown key, or a value of the wrong kind.
    """
    files = [a for a in arguments.settings if "=" not in a]
    if len(files) > 1:
        raise ConfigError(f"{len(files)} hyper-parameter files given ({', '.join(files)}): give one")
    values: dict[str, Any] = flatten_sections(read_yaml(_hparams_file(files[0])), None) if files else {}
    values.update(overrides([a for a in arguments.settings if "=" in a]))
    return hyperparameters(values, files[0] if files else "command line")


def overrides(items: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping; values are read as YAML."""
    import yaml

    found = {}
    for item in items:
        key, _, text = item.partition("=")
        try:
            found[key] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            raise ConfigError(f"the value of {key} ({text!r}) is not YAML: quote it") from None
    return found


def _hparams_file(name: str) -> Path:
    path = Path(name)
    if path.exists():
        return path
    from ..settings.shipped import hparams_path

    return Path(hparams_path(name.removeprefix("hparams/")))


def load(hp: Hyperparameters) -> tuple[Any, Any]:
    """The model and tokenizer a file names.

    Raises:
        ConfigError: none named, or it cannot be loaded.
    """
    from ..distributed import own_device
    from ..models.loading import load_model

    if not hp.model_name_or_path:
        raise ConfigError("no model named: set model_name_or_path=FOLDER (or model_name_or_path=demo)")
    device = own_device(hp.device)
    model, tokenizer = load_model(hp.model_name_or_path, dtype=hp.dtype, device=device, device_map=hp.device_map)
    if hp.use_chat_template and not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"the tokenizer of {hp.model_name_or_path} has no chat template: set use_chat_template=false, so that "
            "questions are put as they are"
        )
    return model, tokenizer


def artifact_option(parser: argparse.ArgumentParser, use: str, required: bool = False) -> None:
    """`--artifact`: a folder, or a repository of the hub."""
    parser.add_argument("--artifact", required=required, metavar="DIR|OWNER/NAME", help=f"{use} ({WHERE})")


def check_steered(arguments: argparse.Namespace) -> None:
    """Check that strengths are given only together with the change that they are of."""
    if arguments.m and not arguments.artifact:
        raise ConfigError(f"-m {arguments.m[0]:g} is the strength of a change: name its folder with --artifact DIR")


def load_artifact(place: Place, hp: Hyperparameters, any_model: bool = False) -> SteeringArtifact:
    """The change at a place; of several, `layers=[N]` says which (`layers=[N,M] joint=true` the one of these layers).

    Args:
        any_model: it may be used with other weights than it was made for.

    Raises:
        ArtifactError: see `SteeringArtifact.load`.
    """
    from ..changes.artifact import SteeringArtifact

    layers = hp.layer_groups
    with place.named():
        artifact = SteeringArtifact.load(place.path, layers[0] if len(layers) == 1 else None)
    return artifact.for_any_model() if any_model else artifact


def own_strength(artifact: SteeringArtifact, place: Place) -> Calibration | None:
    """What is used where no strength was said, after saying so: what the change keeps, or what the sweep beside it
    recommends; None, for 1, where neither says one.

    Raises:
        ConfigError: what they say is not reliable. ArtifactError: see `calibrate.find_calibration`.
    """
    from ..calibrate import find_calibration

    found, _ = find_calibration(artifact, place.home)
    kept = replace(artifact, calibration=found).kept_strength() if found else None
    said = kept or "the change keeps no strength, so m = 1: sweep it and use fit --write, or give -m"
    print(f"note: no strength given: {said}")
    return kept


def budget_option(parser: argparse.ArgumentParser, meaning: str = "budget") -> None:
    """`--max-utility-drop NATS[/token]`."""
    parser.add_argument(
        "--max-utility-drop", type=_budget, default=1.0, metavar="NATS[/token]",
        help=f"{meaning}: nats in the sweep's unit, or nats a token of the mean answer, as 0.05/token (default: 1)",
    )  # fmt: skip


def _budget(text: str) -> Budget:
    from ..analysis.budget import parse_budget

    try:
        return parse_budget(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no budget: give nats, as 1, or nats a token, as 0.05/token"
        ) from None


def calibration_options(parser: argparse.ArgumentParser) -> None:
    """`--write`."""
    parser.add_argument(
        "--write", action="store_true",
        help="keep the recommended strength in the swept change: generate, attach, export and serve use it by default",
    )  # fmt: skip


def keep_strength(folder: Path, table: SweepTable, analysis: Analysis, name: str) -> bool:
    """`--write` for one sweep; whether there was a strength to keep."""
    from ..calibrate import write_calibration
    from ..errors import FitError
    from ..storage.locks import folder_lock

    try:
        with folder_lock(folder):
            path, kept = write_calibration(folder, table, analysis)
    except FitError as error:
        print(f"{name}: nothing written, because {error}")
        return False
    unused = "" if kept.reliable else "; not reliable, so it is not used where no strength is given"
    print(f"{name}: {kept} -> {path}{unused}")
    return True


def far_strengths(place: Place, artifact: SteeringArtifact, strengths: Sequence[float]) -> list[str]:
    """A note for each strength past what the change was swept over, or, where it was not swept, far past what it was
    trained with."""
    from ..analysis.reliability import largest_trained
    from ..changes.provenance import source_of
    from ..folders import same_change, sweeps_in
    from ..sweeps.table import SweepTable

    ends = [] if artifact.calibration is None else [*artifact.calibration.swept]
    for file in [] if place.home is None else sweeps_in(place.home):
        with suppress(ArtifactError):  # a broken sweep says nothing of the change
            table = SweepTable.load(file)
            if same_change(table.header.get("artifact") or {}, source_of(artifact)):
                ends += [float(table.factors.min()), float(table.factors.max())]
    if ends:
        low, high = min(ends), max(ends)
        said = f"the change was swept from {low:g} to {high:g}, and what it does past that was not measured"
        return [f"m = {m:g} is past the sweep: {said}" for m in strengths if m < low or m > high]
    most = FAR * (largest_trained(artifact.origin) or math.inf)
    said = f"the change was trained at up to {most / FAR:.3g}, and not swept"
    return [f"m = {m:g} is far past the training: {said}" for m in strengths if abs(m) > most]


def data(hp: Hyperparameters, key: str) -> list[PreferencePair]:
    """The pairs of `train_data` or `test_data`: a file, or a name of `data.sources`.

    Raises:
        ConfigError: none named. DataError: see `load_part`.
    """
    from ..data.sources import load_part

    name = getattr(hp, key)
    if not name:
        raise ConfigError(f"no pairs named: set {key}=FILE (.jsonl, .json, .csv or .parquet), or a data set's name")
    pairs = flat_pairs(by_concept(load_part(name, key.removesuffix("_data"))), hp.concept_id)
    return pairs[: hp.max_num_of_examples] if hp.max_num_of_examples else pairs


def unrelated(hp: Hyperparameters) -> Sequence[str]:
    """Questions that have nothing to do with what is steered; of the micro-world's model those of its other tasks."""
    from ..evaluation.demo import questions_of_other_tasks
    from ..evaluation.swept_texts import UNRELATED

    own = hp.model_name_or_path == "demo"
    return questions_of_other_tasks(str(hp.test_data).removeprefix("demo:")) if own else UNRELATED


def output_dir(hp: Hyperparameters) -> Path:
    """The folder a command writes to.

    Raises:
        ConfigError: none named.
    """
    if not hp.output_dir:
        raise ConfigError("no folder to write to: set output_dir=FOLDER")
    return Path(hp.output_dir)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns aligned for a terminal; numbers, and their heads, to the right."""
    cells = [list(heads), *[[_cell(v) for v in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    right = [any(isinstance(row[i], (int, float)) for row in rows) for i in range(len(heads))]
    for row in [cells[0], ["-" * w for w in widths], *cells[1:]]:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        print("  ".join(padded).rstrip())


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
