"""Sharing a change on the Hugging Face hub: the artifact's file, a model card and a picture of its curves.

A repository holds `layer_<l>.safetensors` as `save` writes it, `README.md` and `curves.png`, in one commit. Reading one
fetches `layer_<l>.safetensors` and nothing else, whatever else lies there. `HF_ENDPOINT`, `HF_TOKEN` and
`HF_HUB_OFFLINE` mean what they mean to huggingface_hub. `find` is where a name that a user gave becomes a place on
this machine: for `load`, for every command and for the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..changes.change import Change
from ..changes.provenance import source_of
from ..errors import ArtifactError, ConfigError
from ..folders import same_change
from .card import model_card

if TYPE_CHECKING:
    from ..analysis.pipeline import Analysis
    from ..sweeps.table import SweepTable

LAYERS, CARD, PICTURE = "layer_*.safetensors", "README.md", "curves.png"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_NAMED = re.compile(rf"({_REPO.pattern})(?:@([A-Za-z0-9][\w./-]*))?", re.ASCII)
_OURS = re.compile(r"layer_\d[\d_-]*\.safetensors|curves\.png", re.ASCII)


class Saved(Change, Protocol):
    """A change that can be written into a folder."""

    def save(self, folder: str | Path) -> Path: ...


S = TypeVar("S", bound=Saved)


@dataclass(frozen=True)
class Place:
    """Where a change was found: `path` is its folder or file. Where it is on the hub, `repository` is the name that was
    given for it, and `path` the folder of this machine's copy."""

    path: Path
    repository: str = ""

    def __str__(self) -> str:
        return self.repository or str(self.path)

    @property
    def name(self) -> str:
        """The last part of the repository's or the folder's name."""
        if self.repository:
            return self.repository.partition("@")[0].rpartition("/")[2]
        return (self.path.parent if self.path.is_file() else self.path).resolve().name

    @property
    def home(self) -> Path | None:
        """The folder in which sweeps of the change may lie; None for the hub's, of which only the change is fetched."""
        if self.repository:
            return None
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def files(self) -> list[Path]:
        """The changes that it holds; for a file, the file."""
        return [self.path] if self.path.is_file() else sorted(self.path.glob(LAYERS))

    @contextmanager
    def named(self) -> Iterator[None]:
        """An `ArtifactError` in here names the repository, and not the copy's path."""
        try:
            yield
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(str(self.path), str(self))) from error


def find(name: str | Path, revision: str | None = None) -> Place:
    """A folder or file of this name; or, where there is none, the hub's repository OWNER/NAME or OWNER/NAME@REVISION.

    Raises:
        ConfigError: a revision of what lies in a folder, or two revisions. ArtifactError: see `fetch`.
    """
    path, named = Path(name), _NAMED.fullmatch(str(name))
    if named is None or path.exists():
        if revision is not None:
            raise ConfigError(
                f"revision {revision!r} of {name}: only a repository on the hub (OWNER/NAME) has revisions"
            )
        return Place(path)
    repository, said = named.groups()
    if said and revision not in (None, said):
        raise ConfigError(f"{name} and revision {revision!r} name two revisions: give one")
    try:
        return replace(fetch(repository, said or revision), repository=str(name))
    except ArtifactError as error:
        raise ArtifactError(f"{name} is no file or folder here, and {error}") from error


def push(
    artifact: Saved,
    repository: str,
    base_model: str | None = None,
    license: str | None = None,
    sweep: SweepTable | None = None,
    private: bool = False,
) -> str:
    """Write `artifact` into the repository, which is made if it is not there; see `SteeringArtifact.push_to_hub`."""
    _check_repository(repository)
    if base_model is not None:
        _check_repository(base_model, "base_model")
    _check_token()
    shared = _without_paths(artifact, base_model)
    found = None if sweep is None else _analysed(artifact, sweep)
    with _room() as room:
        folder = Path(room)
        files = {file.name: file for file in [shared.save(folder)]}
        if found is not None:
            files[PICTURE] = _picture(found, folder)
        card = model_card(shared, repository, license, None if found is None else found.advice)
        with _in_a_sentence(f"{repository} could not be written to the hub"):
            return _commit(repository, files, card, private)


def fetch(repository: str, revision: str | None = None) -> Place:
    """The repository's `layer_<l>.safetensors`, in huggingface_hub's cache.

    Raises:
        ConfigError: no name of a repository.
        ArtifactError: not there, without a change, or out of reach and not in the cache.
    """
    from huggingface_hub import snapshot_download

    _check_repository(repository)
    with _in_a_sentence(f"{repository} could not be read from the hub"):
        found = Place(Path(snapshot_download(repository, revision=revision, allow_patterns=[LAYERS])), repository)
    if not found.files:
        raise ArtifactError(f"the hub's {repository} has no layer_<l>.safetensors: it holds no change of this package")
    return found


def _is_repository(name: str) -> bool:
    return _REPO.fullmatch(name) is not None


def _check_repository(name: str, what: str = "repository") -> None:
    if not _is_repository(name):
        raise ConfigError(f"{what} {name!r} is no name on the hub: write OWNER/NAME")


def _room() -> TemporaryDirectory[str]:
    """A folder in which the files are made before anything is sent."""
    try:
        return TemporaryDirectory()
    except OSError as error:
        raise ArtifactError(
            f"there is no folder to write the card in ({error.strerror}): set TMPDIR to one that can be written"
        ) from None


def _check_token() -> None:
    from huggingface_hub import get_token

    if get_token() is None:
        raise ConfigError("no token of the hub is known here: log in with `hf auth login`, or set HF_TOKEN to one")


def _without_paths(artifact: S, base_model: str | None) -> S:
    """The change with its model called `base_model`; else as it was, but a folder by its last name alone."""
    name = base_model or str(artifact.model.get("name") or "")
    if not name:
        raise ConfigError("the change does not say which model it is for: give base_model='OWNER/NAME'")
    folder = base_model is None and (Path(name).exists() or not _is_repository(name))
    public = Path(name).name if folder else name
    model, origin = {**artifact.model, "name": public}, _file_names(artifact.origin)
    shared: S = replace(artifact, model=model, origin=origin)  # type: ignore[type-var]
    return shared


def _file_names(origin: Any) -> Any:
    """An origin (of a sum: of origins) in which EasyEdit's file is called by its last name alone."""
    if isinstance(origin, list):
        return [_file_names(one) for one in origin]
    if not isinstance(origin, dict):
        return origin
    return {k: Path(str(v)).name if k == "easyedit" else _file_names(v) for k, v in origin.items()}


def _analysed(artifact: Change, sweep: SweepTable) -> Analysis:
    from ..analysis.pipeline import analyse

    made_from = sweep.header.get("artifact") or {}
    if not same_change(made_from, source_of(artifact)):
        raise ArtifactError("the sweep is of another change than the one that is pushed: give its own")
    if sweep.header.get("any_model"):
        raise ArtifactError("the sweep was made with --any-model, on other weights than the change's: give its own")
    return analyse(sweep, artifact.calibration.budget) if artifact.calibration else analyse(sweep)


def _picture(found: Analysis, folder: Path) -> Path:
    from ..analysis.canvas import save_figure
    from ..analysis.plots import plot_curves

    return save_figure(plot_curves({"this change": found}), folder / Path(PICTURE).stem)[0]


def _commit(repository: str, files: dict[str, Path], card: str, private: bool) -> str:
    """One commit: the files and the card in, what an earlier push left and this one does not write out."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="easyedit_split")
    api.create_repo(repository, private=private, exist_ok=True)
    there = [name for name in api.list_repo_files(repository) if _OURS.fullmatch(name)]
    operations: list[Any] = [CommitOperationDelete(name) for name in there if name not in files]
    operations += [CommitOperationAdd(name, file) for name, file in files.items()]
    operations.append(CommitOperationAdd(CARD, card.encode("utf-8", "backslashreplace")))
    done = api.create_commit(repository, operations, commit_message="Steering change, with its model card")
    return str(done.commit_url)


@contextmanager
def _in_a_sentence(what: str) -> Iterator[None]:
    """What goes wrong between here and the hub, as an `ArtifactError`."""
    from huggingface_hub.errors import (
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    known = {
        RepositoryNotFoundError: "no such repository, or not for this user",
        RevisionNotFoundError: "it has no such revision",
        LocalEntryNotFoundError: "the hub is out of reach, and this machine keeps no copy",
    }
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = next((said for kind, said in known.items() if isinstance(error, kind)), first)
        raise ArtifactError(f"{what} ({reason}): check the name, the network and `hf auth login`") from error
