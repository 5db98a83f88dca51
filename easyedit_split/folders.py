"""What a folder holds and which change it was made from, so that nothing of two changes is ever mixed.

A run's folder holds one run's changes (`layer_<l>.safetensors`) and what was made from them. Every such file names its
change by an id; files of earlier versions, which do not, are known by the change's form, site and origin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import ArtifactError
from .storage.files import read_header
from .sweeps.table import read_sweep_header

TEST, TRAIN, ACTIVATIONS = "sweep.parquet", "sweep_train.parquet", "activations.npz"
PROMOTED, SCORES = "promoted.json", "scores.json"
EVALUATION, GENERATIONS, TEXTS = "evaluation.json", "generations.jsonl", "texts.json"
# made from the changes of a folder
DERIVED = (
    TEST, "sweep-*.parquet", TRAIN, ".*.parquet.partial", ACTIVATIONS, PROMOTED, SCORES, EVALUATION,
    "evaluation-*.json", GENERATIONS, "generations-*.jsonl", TEXTS, "texts-*.json", "report.html", "report.md",
    "tables/*.csv", "figures/curves_*", "figures/front_*", "figures/manifold_*", "figures/texts_*",
)  # fmt: skip
CHANGES = ("layer_*.safetensors", "layer_*.pt", "last_good/layer_*")

Source = Mapping[str, Any]  # id, form, site, origin: see `changes.provenance.source_of`


def changes_in(folder: Path) -> dict[Path, Source]:
    """The changes of a folder: file -> its source, and its `model`.

    Raises:
        ArtifactError: a broken file.
    """
    found: dict[Path, Source] = {}
    for file in sorted(folder.glob("layer_*.safetensors")):
        header = read_header(file)
        site = header.get("site", {})
        place = header.get("place") or f"layer {site.get('layer')}, {site.get('component')}"
        about = {key: header.get(key) for key in ("id", "form", "origin", "model")}
        found[file] = {**about, "site": place}
    return found


def layers_of(file: Path) -> tuple[int, ...]:
    """The layers that a change's file is named after (`layer_14`, `layer_12-14_16`); none where it is no such name."""
    found: list[int] = []
    for run in file.stem.removeprefix("layer_").split("_"):
        first, _, last = run.partition("-")
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in (first, last or first)):
            return ()
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def sweeps_in(folder: Path) -> list[Path]:
    """The sweeps of test pairs, the first one made first."""
    return [*folder.glob(TEST), *sorted(folder.glob("sweep-*.parquet"))]


def same_change(first: Source, second: Source) -> bool:
    """Whether two sources are of one change, as far as they say."""
    if first.get("id") and second.get("id"):
        return bool(first["id"] == second["id"])
    return not differences(first, second) and first.get("site") == second.get("site")


def differences(kept: Source, planned: Source) -> list[str]:
    """In what two sources differ, in words; the layer apart, because a run may train several, each alone."""
    pairs = [("form", kept.get("form"), planned.get("form"))]
    pairs.append(("layers together", _together(kept), _together(planned)))
    pairs.append(("component", _component(kept), _component(planned)))
    old, new = _flat(kept.get("origin") or {}), _flat(planned.get("origin") or {})
    pairs += [(key, old.get(key), new.get(key)) for key in sorted({*old, *new})]
    return [f"{key} {a}, here {b}" for key, a, b in pairs if a is not None and b is not None and a != b]


def check_free(folder: Path, planned: Source, overwrite: bool) -> None:
    """Check that a run may train into `folder`: it holds nothing, or only what a run of the same settings made.

    Args:
        overwrite: take away the changes of another run and everything that was made from them.

    Raises:
        ArtifactError: it holds another run.
    """
    try:
        sources = _sources(folder)
    except ArtifactError as error:
        if not overwrite:
            raise ArtifactError(f"{error}; overwrite=true replaces it") from None
        clear(folder)
        return
    for file, kept in sources.items():
        found = differences(kept, planned)
        if found and not overwrite:
            raise ArtifactError(
                f"{file} is of another run ({'; '.join(found[:3])}): choose another output_dir, or set overwrite=true "
                "to replace that run and what was made from it"
            )
        if found:
            clear(folder)
            return


def clear(folder: Path, patterns: Sequence[str] = (*CHANGES, *DERIVED)) -> None:
    """Take away what a run left in a folder; anything else in it stays."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    for emptied in ("last_good", "tables", "figures"):
        with suppress(OSError):  # not there, or not empty
            (folder / emptied).rmdir()


def check_home(folder: Path, source: Source) -> None:
    """Check that what is made from a change may lie in `folder`: it holds that change, or none.

    Raises:
        ArtifactError: it holds another one.
    """
    held = changes_in(folder)
    if held and not any(same_change(kept, source) for kept in held.values()):
        raise ArtifactError(
            f"{folder} holds another change ({', '.join(file.name for file in held)}): choose another output_dir"
        )


def sweep_file(target: Path, named: bool, source: Source, settings: str, overwrite: bool) -> Path:
    """Where a sweep goes: `target`, or beside it under a name of its own where a sweep of other settings lies there.

    Args:
        named: the user named the file, so that another name would be a surprise.
        settings: `SweepTable.settings_id` of the new sweep.
        overwrite: replace what lies there; of another change, everything made from that goes as well.

    Raises:
        ArtifactError: the folder, or the file, is of another change or (where it was named) of other settings.
    """
    check_home(target.parent, source)
    if not target.exists():
        return target
    try:
        kept, there = read_sweep_header(target)
    except ArtifactError:  # broken: worth nothing
        return target
    if not same_change(kept["artifact"], source):
        if not overwrite:
            raise ArtifactError(
                f"{target} is of another change: choose another output_dir, or set overwrite=true to replace it"
            )
        if not named:
            clear(target.parent, DERIVED)
        return target
    if there == settings or overwrite:
        return target
    if named:
        raise ArtifactError(
            f"{target} is a sweep of other settings: name another file, or set overwrite=true to replace it"
        )
    return sweep_file(target.with_name(f"sweep-{settings}.parquet"), True, source, settings, overwrite)


def check_of_change(file: Path, source: Source, owner: Path, again: str) -> None:
    """Check that `file`, made from `source`, is of the change in `owner`.

    Raises:
        ArtifactError: it is not; `again` says what to run.
    """
    held = changes_in(owner) if owner.is_dir() else {}
    if held and not any(same_change(kept, source) for kept in held.values()):
        raise ArtifactError(f"{file} is of another change than {', '.join(f.name for f in held)} beside it: {again}")


def beside(path: Path, made_from: str, kept: str | None, overwrite: bool) -> Path:
    """`path`, or where something of other settings lies there, the same name with the first letters of `made_from`."""
    if not path.exists() or overwrite or kept == made_from:
        return path
    return path.with_name(f"{path.stem}-{made_from[:8]}{path.suffix}")


def _sources(folder: Path) -> dict[Path, Source]:
    """Of every change and sweep in a folder; a broken sweep says nothing."""
    found = dict(changes_in(folder))
    for file in sweeps_in(folder):
        try:
            found[file] = read_sweep_header(file)[0]["artifact"]
        except ArtifactError:
            continue
    return found


def _component(source: Source) -> str | None:
    site = source.get("site")
    return site.partition(", ")[2] if isinstance(site, str) else None


def _together(source: Source) -> str | None:
    """The layers of one change, where it has several."""
    site = source.get("site")
    if not isinstance(site, str):
        return None
    return site.partition(", ")[0].removeprefix("layers ") if site.startswith("layers") or ";" in site else "none"


def _flat(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an origin by their own names; how the pairs differ is not put in numbers."""
    found: dict[str, Any] = {}
    for key, value in origin.items():
        if key in ("objective", "config") and isinstance(value, Mapping):
            found |= {("objective" if k == "name" else k): json.loads(json.dumps(v)) for k, v in value.items()}
        elif key == "pairs_sha256":
            found["pairs' hash"] = str(value)[:8]
        elif key not in ("versions", "pairs"):
            found[key] = json.loads(json.dumps(value, default=str))
    return found
