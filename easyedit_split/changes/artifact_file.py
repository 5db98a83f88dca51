"""How a change lies on disk: one safetensors file, its parameters and a JSON header.

`layer_<l>.safetensors`; of a change at several sites `layer_12-14.safetensors`, with `sites` in place of `site` in the
header. The vector form also writes EasyEdit's `layer_<l>.pt`, a plain tensor a layer, where adding at its site equals
adding at the block's output. Nothing is unpickled.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import ArtifactError, ConfigError, SteeringError
from ..models.sites import Site, Sites, sites_of
from ..storage.files import read_tensors, write_bytes, write_tensors
from .calibration import Calibration
from .change import Change
from .forms import from_tensors, parts_of
from .positions import Positions

FORMAT_VERSION = 1
FORMAT_OF_SEVERAL = 2  # what reads version 1 alone refuses it


def file_name(site: Site | Sites) -> str:
    """The name of the file of a change at `site`."""
    return f"layer_{site.layers}.safetensors"


def write_artifact(change: Change, folder: Path, plain: bool) -> Path:
    """Write into `folder`, atomically; returns the path of the safetensors file.

    Args:
        plain: write EasyEdit's files, too; otherwise those of a change that is replaced go.
    """
    one = isinstance(change.site, Site)
    header = {
        "format_version": FORMAT_VERSION if one else FORMAT_OF_SEVERAL, "form": change.form,
        **({"site": asdict(change.site)} if one else {**asdict(change.site), "place": str(change.site)}),
        "positions": asdict(change.positions), "model": change.model, "origin": change.origin, "id": change.id,
    }  # fmt: skip
    if change.calibration is not None:
        header["calibration"] = change.calibration.as_json()
    for delta, site in zip(parts_of(change.delta), change.site.sites, strict=True):
        path = folder / f"layer_{site.layer}.pt"
        if plain:
            content = io.BytesIO()  # torch.save to a full disk raises no OSError
            torch.save(delta.tensors()["db"].cpu().clone(), content)
            write_bytes(path, content.getvalue())
        else:
            with suppress(OSError):  # then the file below cannot be written either
                path.unlink(missing_ok=True)
    return write_tensors(folder / file_name(change.site), change.delta.tensors(), header)


def read_artifact(path: Path, layer: int | Sequence[int] | None = None) -> dict[str, Any]:
    """The parts of an artifact from its folder or file: delta, site, positions, model, origin, calibration.

    Args:
        layer: which one, where the folder holds several; of a change of several layers, all of them.

    Raises:
        ArtifactError: no artifact there, several and none chosen, or a broken file.
    """
    file = _file(path, layer)
    tensors, header = read_tensors(file)
    if header.get("format_version") not in (FORMAT_VERSION, FORMAT_OF_SEVERAL):
        raise ArtifactError(
            f"{file} has format version {header.get('format_version')!r}, this package reads {FORMAT_VERSION} and "
            f"{FORMAT_OF_SEVERAL}: install the version that wrote it, or train again"
        )
    try:
        delta = from_tensors(header["form"], tensors)
        site, positions = _site(header), Positions(**header["positions"])
        if len(parts_of(delta)) != len(site.sites):
            raise ConfigError(f"it holds {len(parts_of(delta))} changes for {site}")
        if not isinstance(positions.prefix, int):
            raise ConfigError(f"its positions are {header['positions']!r}")
        model, origin = dict(header["model"]), dict(header["origin"])
        kept = header.get("calibration")
        calibration = None if kept is None else Calibration.from_json(kept)
    except (KeyError, TypeError, ValueError, SteeringError) as error:
        raise ArtifactError(f"{file} is broken ({error}): write it again") from None
    return {
        "delta": delta.requires_grad_(False), "site": site, "positions": positions, "model": model, "origin": origin,
        "calibration": calibration,
    }  # fmt: skip


def _site(header: dict[str, Any]) -> Site | Sites:
    """What a header says of the place, or the places."""
    given = [header["site"]] if header["format_version"] == FORMAT_VERSION else header["sites"]
    sites = [Site(**site) for site in given]
    for site in sites:
        if not isinstance(site.layer, int) or not isinstance(site.component, str):
            raise ConfigError(f"its site is {asdict(site)!r}")
    return sites[0] if len(sites) == 1 else Sites(tuple(sites))


def _file(path: Path, layer: int | Sequence[int] | None) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("layer_*.safetensors")) if path.is_dir() else []
    held = ", ".join(file.name for file in files)
    if not files:
        raise ArtifactError(f"{path} does not hold an artifact: give the folder that train wrote")
    if layer is not None:
        named = file_name(sites_of(Site(number) for number in ({layer} if isinstance(layer, int) else set(layer))))
        files = [f for f in files if f.name == named]
        if not files:
            raise ArtifactError(f"{path} does not hold {named} but {held}: name another layer")
    if len(files) > 1:
        raise ArtifactError(f"{path} holds {held}: choose one with layer= (on the command line layers=[N])")
    return files[0]
