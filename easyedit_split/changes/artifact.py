"""What training returns and what is kept: a change, where it goes, and where it came from.

On disk: `layer_<l>.safetensors`, the parameters and a JSON header. The vector form also writes EasyEdit's
`layer_<l>.pt`, a plain tensor, where adding at its site equals adding at the block's output. Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ArtifactError, ConfigError, SteeringError
from ..models.identity import adds_at_block_output, check_model
from ..models.protocols import CausalLM
from ..models.sites import ResolvedSite, Site, resolve_site
from ..storage.files import checksum, read_tensors, write_bytes, write_tensors
from . import arithmetic
from .attach import Handle, Strength, attach, check_fit
from .calibration import Calibration
from .forms import LinearDelta, from_tensors
from .merge import Merge, merge
from .positions import Positions

if TYPE_CHECKING:
    from ..formats.peft import PeftExport
    from ..sweeps.table import SweepTable

FORMAT_VERSION = 1


@dataclass(frozen=True)
class SteeringArtifact:
    """A trained change: `delta` at `site`, steering the token `positions` it was trained on.

    `model` describes the base model (`describe_model`), `origin` how the change was made (objective, settings,
    concept, versions). Both are stored and neither is needed to use the change. `calibration` is the strength that was
    found for it, used where none is said; None where none was kept.
    """

    delta: LinearDelta
    site: Site
    positions: Positions = Positions()
    model: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def form(self) -> str:
        return self.delta.form

    @property
    def id(self) -> str:
        """The change itself in 16 letters: parameters, form, site and positions."""
        place = json.dumps([self.form, asdict(self.site), asdict(self.positions)])
        return checksum(place, self.delta.tensors())[:16]

    def attach(
        self, model: CausalLM, m: Any = None, *, m1: Any = None, m2: Any = None, any_model: bool = False
    ) -> Handle:
        """Steer `model` with strength `m` until the returned handle is removed (it is a context manager).

        Without a strength the one in `calibration` is used, and a warning says which.

        Args:
            any_model: accept other weights than those the change was made for.

        Raises:
            ArtifactError: the model is another one (see `check_model`).
            ConfigError: a strength that is not finite, or not a number or `(B,)`; or none given and none kept.
        """
        site, strength = self.resolve(model, any_model), self._strength(m, m1, m2, any_model)
        return attach(model, self.delta, site, m1=strength.m1, m2=strength.m2, positions=self.positions)

    def merge(
        self,
        model: CausalLM,
        m: float | None = None,
        *,
        m1: float | None = None,
        m2: float | None = None,
        any_model: bool = False,
    ) -> Merge:
        """Write the change into `model`'s weights; `.undo()` of the result restores them bit for bit.

        Without a strength the one in `calibration` is used, as in `attach`.

        Raises:
            ArtifactError: the model is another one (see `check_model`).
            ConfigError: a strength that is not finite; or none given and none kept.
            NotMergeableError: the change cannot be written into the weights; the message says what to do instead.
        """
        site = self.resolve(model, any_model)
        return merge(model, self.delta, site, self.positions, self._strength(m, m1, m2, any_model))

    def kept_strength(self) -> Calibration:
        """The calibration, to be used where no strength was said.

        Raises:
            ConfigError: there is none, or it is not reliable.
        """
        if self.calibration is None:
            raise ConfigError(
                "no strength given, and the change keeps none: pass m, or m1 and m2, or keep one with fit --write"
            )
        if not self.calibration.reliable:
            raise ConfigError(
                f"no strength given, and the one that the change keeps ({self.calibration}) is not reliable: pass m "
                f"({self.calibration.reason})"
            )
        return self.calibration

    def _strength(self, m: Any, m1: Any, m2: Any, any_model: bool) -> Strength:
        if not (m is None and m1 is None and m2 is None):
            return Strength(m, m1=m1, m2=m2)
        kept = (self.for_any_model() if any_model else self).kept_strength()
        warnings.warn(f"no strength given: {kept}", stacklevel=3)
        return Strength(m1=kept.m1, m2=kept.m2)

    def resolve(self, model: CausalLM, any_model: bool = False) -> ResolvedSite:
        """The site in `model`, after checking that the change was made for it (`check_model`)."""
        check_model(self.model, model, self.site.layer, any_model)
        resolved = resolve_site(model, self.site)
        check_fit(self.delta, resolved)
        return resolved

    def for_any_model(self) -> SteeringArtifact:
        """The same change, to be used with other weights than those it was made for, on which nothing was measured."""
        return replace(self, model={k: v for k, v in self.model.items() if k != "weights"}, calibration=None)

    def save(self, folder: str | Path) -> Path:
        """Write into `folder`, atomically; returns the path of the safetensors file."""
        folder = Path(folder)
        path = folder / f"layer_{self.site.layer}.safetensors"
        header = {
            "format_version": FORMAT_VERSION, "form": self.form, "site": asdict(self.site),
            "positions": asdict(self.positions), "model": self.model, "origin": self.origin, "id": self.id,
        }  # fmt: skip
        if self.calibration is not None:
            header["calibration"] = self.calibration.as_json()
        if not self.acts_at_block_output:
            with suppress(OSError):  # then the file below cannot be written either
                path.with_suffix(".pt").unlink(missing_ok=True)  # of the change that is replaced
        if self.acts_at_block_output:
            plain = io.BytesIO()  # torch.save to a full disk raises no OSError
            torch.save(self.delta.tensors()["db"].cpu().clone(), plain)
            write_bytes(path.with_suffix(".pt"), plain.getvalue())
        return write_tensors(path, self.delta.tensors(), header)

    @property
    def acts_at_block_output(self) -> bool:
        """Whether this is a vector that may as well be added to the block's output (EasyEdit's convention)."""
        plain_mlp = self.site.component == "mlp.down_proj" and adds_at_block_output(self.model)
        return self.form == "vector" and (self.site.component == "residual" or plain_mlp)

    @classmethod
    def load(cls, path: str | Path, layer: int | None = None) -> SteeringArtifact:
        """Read an artifact from its folder or file.

        Args:
            layer: which one, where the folder holds several.

        Raises:
            ArtifactError: no artifact there, several and none chosen, or a broken file.
        """
        file = _artifact_file(Path(path), layer)
        tensors, header = read_tensors(file)
        if header.get("format_version") != FORMAT_VERSION:
            raise ArtifactError(
                f"{file} has format version {header.get('format_version')!r}, this package reads {FORMAT_VERSION}: "
                "install the version that wrote it, or train again"
            )
        try:
            delta = from_tensors(header["form"], tensors)
            site, positions = Site(**header["site"]), Positions(**header["positions"])
            if not isinstance(site.layer, int) or not isinstance(site.component, str):
                raise ConfigError(f"its site is {header['site']!r}")
            if not isinstance(positions.prefix, int):
                raise ConfigError(f"its positions are {header['positions']!r}")
            model, origin = dict(header["model"]), dict(header["origin"])
            kept = header.get("calibration")
            calibration = None if kept is None else Calibration.from_json(kept)
        except (KeyError, TypeError, ValueError, SteeringError) as error:
            raise ArtifactError(f"{file} is broken ({error}): write it again") from None
        return cls(delta.requires_grad_(False), site, positions, model, origin, calibration)

    def scaled(self, factor: float) -> SteeringArtifact:
        """The change times `factor`; see `arithmetic.scaled`."""
        return arithmetic.scaled(self, factor)

    def __add__(self, other: SteeringArtifact) -> SteeringArtifact:
        """The sum of two changes at one site, exact; see `arithmetic.add`."""
        return arithmetic.add(self, other) if isinstance(other, SteeringArtifact) else NotImplemented

    def to_peft(self, folder: str | Path, m: float = 1.0, **options: Any) -> PeftExport:
        """Write a PEFT LoRA adapter of strength `m`; see `formats.peft.to_peft` for `options` and errors."""
        from ..formats.peft import to_peft

        return to_peft(self, folder, m, **options)

    @classmethod
    def from_peft(cls, folder: str | Path) -> SteeringArtifact | list[SteeringArtifact]:
        """Read a PEFT LoRA adapter: one artifact, or a list where it touches several modules.

        `m = 1` is the adapter as it stands. See `formats.peft.read_adapter` for what it reads and refuses.
        """
        from ..formats.peft import read_adapter

        found = [cls(**parts) for parts in read_adapter(folder)]
        return found[0] if len(found) == 1 else found

    def push_to_hub(
        self,
        repository: str,
        *,
        base_model: str | None = None,
        license: str | None = None,
        sweep: SweepTable | None = None,
        private: bool = False,
    ) -> str:
        """Write the change and a model card into a repository of the Hugging Face hub (OWNER/NAME), in one commit.

        The repository is made if it is not there. What an earlier push wrote there is replaced, other files stay.

        Args:
            base_model: the base model's hub id, where it was loaded from a folder; its path is never written.
            license: the hub's word for a licence, such as `"mit"`; None leaves it unsaid.
            sweep: of this change; the card then shows its curves.
            private: for a repository that is made now.

        Returns:
            The commit's address.

        Raises:
            ConfigError: a name or licence that the hub does not take, or no model named. ArtifactError: a sweep of
                another change, or the hub cannot be reached or refuses.
        """
        from ..formats.hub import push

        return push(self, repository, base_model, license, sweep, private)

    @classmethod
    def from_hub(cls, repository: str, *, revision: str | None = None, layer: int | None = None) -> SteeringArtifact:
        """Read a change from a repository of the hub; only its `layer_<l>.safetensors` is fetched.

        Args:
            revision: branch, tag or commit; None is the newest. layer: see `load`.

        Raises:
            ConfigError: no name of a repository. ArtifactError: not there or out of reach; see also `load`.
        """
        from ..formats.hub import fetch

        return cls.load(fetch(repository, revision), layer)


def load(name: str | Path, *, layer: int | None = None, revision: str | None = None) -> SteeringArtifact:
    """A change from its folder or file; or, where there is none of that name, from the hub's repository OWNER/NAME.

    Raises:
        ConfigError: a revision of what lies in a folder. ArtifactError: see `SteeringArtifact.load`, `from_hub`.
    """
    from ..formats.hub import is_repository

    if is_repository(str(name)) and not Path(name).exists():
        try:
            return SteeringArtifact.from_hub(str(name), revision=revision, layer=layer)
        except ArtifactError as error:
            raise ArtifactError(f"{name} is no folder here, and {error}") from error
    if revision is not None:
        raise ConfigError(f"revision {revision!r} of {name}: only a repository on the hub (OWNER/NAME) has revisions")
    return SteeringArtifact.load(name, layer)


def _artifact_file(path: Path, layer: int | None) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("layer_*.safetensors")) if path.is_dir() else []
    held = ", ".join(file.name for file in files)
    if not files:
        raise ArtifactError(f"{path} does not hold an artifact: give the folder that train wrote")
    if layer is not None:
        files = [f for f in files if f.stem == f"layer_{layer}"]
    if not files:
        raise ArtifactError(f"{path} does not hold layer_{layer}.safetensors but {held}: name another layer")
    if len(files) > 1:
        raise ArtifactError(f"{path} holds {held}: choose one with layer= (on the command line layers=[N])")
    return files[0]
