"""What a server offers: artifacts by name, each with its own strength (`calibrate`) and the range it was swept over.

The catalogue is made once, where the server is started. It travels to every process of vLLM as plain JSON in
`additional_config`. Requests name artifacts; paths are never taken from a request.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..calibrate import find_calibration
from ..changes.artifact import SteeringArtifact
from ..errors import ArtifactError, ConfigError
from ..formats.hub import Place, find

KEY = "easyedit_split"  # in vLLM's additional_config
BASE = "base"  # the unsteered model's name
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ServedPart:
    """What an artifact does at one site: its tensors' `shapes`."""

    layer: int
    component: str
    shapes: dict[str, list[int]]


@dataclass(frozen=True)
class Served:
    """One artifact as a server knows it. Its `parts`, one a site, are turned by one strength.

    `digest` is the SHA-256 of its file. `recommended` is None where neither it nor a sweep beside it has a reliable
    strength; `swept` (lowest, highest) is None where it was not swept. `rule` and `prefix` are its `Positions`.
    """

    name: str
    file: str
    digest: str
    form: str
    parts: tuple[ServedPart, ...]
    model: dict[str, Any]
    rule: str
    prefix: int
    recommended: float | None
    swept: tuple[float, float] | None

    def load(self) -> SteeringArtifact:
        """The artifact itself.

        Raises:
            ArtifactError: it is broken, or not the file that the server was started with.
        """
        if _digest(Path(self.file)) != self.digest:
            raise ArtifactError(f"{self.file} was changed after the server was started: start it again")
        return SteeringArtifact.load(self.file)


@dataclass(frozen=True)
class Catalogue:
    """Every artifact of a server, in the order given."""

    entries: tuple[Served, ...]

    @classmethod
    def read(cls, artifacts: Sequence[str | Path]) -> Catalogue:
        """Read artifacts given as folders or repositories of the hub (named after their last part), or as `NAME=` one.

        Raises:
            ConfigError: a name that cannot be served, or one given twice.
            ArtifactError: no artifact there, several, a broken one, or a sweep that is not its own.
        """
        named = [_named(str(artifact)) for artifact in artifacts]
        for name, place in named:
            if not _NAME.fullmatch(name) or name == BASE:
                raise ConfigError(
                    f"{name!r} cannot be the name of a served artifact (letters, digits, . _ and -, not {BASE!r}): "
                    f"give one as NAME={place}"
                )
            if [other for other, _ in named].count(name) > 1:
                raise ConfigError(f"two artifacts are named {name!r}: give one another name, as NAME={place}")
        return cls(tuple(_read(name, place) for name, place in named))

    def config(self) -> dict[str, Any]:
        """As vLLM's `additional_config`, which is also part of its key for compiled graphs."""
        return {KEY: {"version": __version__, "artifacts": [asdict(entry) for entry in self.entries]}}

    @classmethod
    def of(cls, additional_config: Any) -> Catalogue | None:
        """The catalogue in vLLM's `additional_config`; None where there is none."""
        found = additional_config.get(KEY) if isinstance(additional_config, Mapping) else None
        if not found:
            return None
        return cls(tuple(map(_served, found["artifacts"])))

    def find(self, name: str) -> tuple[int, Served] | None:
        """Place and entry of a name."""
        return next(((i, entry) for i, entry in enumerate(self.entries) if entry.name == name), None)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]


def catalogue_of(config: Any) -> Catalogue | None:
    """The catalogue of an engine's configuration (vLLM's), read once; None where there is none."""
    if not hasattr(config, "_easyedit_split"):
        object.__setattr__(config, "_easyedit_split", Catalogue.of(config.additional_config))
    return config._easyedit_split


def _named(text: str) -> tuple[str, Place]:
    name, equals, rest = text.partition("=")
    if equals and not Path(text).exists():
        return name, find(rest)
    place = find(text)
    return place.name, place


def _served(entry: Mapping[str, Any]) -> Served:
    """An entry that went through JSON."""
    parts = tuple(ServedPart(**part) for part in entry["parts"])
    return Served(**{**entry, "parts": parts, "swept": tuple(entry["swept"]) if entry["swept"] else None})


def _read(name: str, place: Place) -> Served:
    if len(place.files) > 1:
        held = ", ".join(file.name for file in place.files)
        raise ArtifactError(f"{place} holds {held}, and a name serves one: {_alone(place)}")
    with place.named():
        artifact = SteeringArtifact.load(place.path)
    file = place.path if place.path.is_file() else place.path / artifact.file_name
    calibration, swept = find_calibration(artifact, place.home)
    usable = calibration is not None and calibration.reliable and calibration.m1 == calibration.m2
    return Served(
        name=name,
        file=str(file.resolve()),
        digest=_digest(file),
        form=artifact.form,
        parts=tuple(_part(part) for part in artifact.parts),
        model={key: artifact.model[key] for key in ("architecture", "layers", "width") if key in artifact.model},
        rule=artifact.positions.rule,
        prefix=artifact.positions.prefix,
        recommended=calibration.m if calibration is not None and usable else None,
        swept=swept,
    )


def _alone(place: Place) -> str:
    """How one of several is served."""
    if place.repository:
        return f'save one alone with es.load("{place}", layer=N).save(FOLDER)'
    return f"give one file, as NAME={place.files[0]}"


def _part(artifact: SteeringArtifact) -> ServedPart:
    site, tensors = artifact.site, artifact.delta.tensors()
    return ServedPart(site.layer, site.component, {key: list(t.shape) for key, t in tensors.items()})


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read ({error.strerror}): check the path") from None
