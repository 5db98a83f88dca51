"""What training returns and what is kept: a change, where it goes, and where it came from.

How it lies on disk is in `artifact_file`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, SiteError
from ..models.identity import adds_at_block_output, check_model
from ..models.protocols import CausalLM
from ..models.sites import ResolvedSite, Site, Sites, resolve_site
from ..storage.files import checksum
from . import arithmetic
from .artifact_file import file_name, read_artifact, write_artifact
from .attach import Handle, attach, check_fit
from .calibration import Calibration
from .forms import LinearDelta, parts_of
from .merge import Merge, merge
from .positions import Positions
from .strength import Strength

if TYPE_CHECKING:
    from ..formats.peft import PeftExport
    from ..sweeps.table import SweepTable


@dataclass(frozen=True)
class SteeringArtifact:
    """A trained change: `delta` at `site`, steering the token `positions` it was trained on.

    `model` describes the base model (`describe_model`), `origin` how the change was made (objective, settings,
    concept, versions). Both are stored and neither is needed to use the change. `calibration` is the strength that was
    found for it, used where none is said; None where none was kept.

    A change at several sites has a `Joint` for its delta and `Sites` for its site. It is trained, kept, swept and
    dialled as one; `parts` are the changes at its single sites.
    """

    delta: LinearDelta
    site: Site | Sites
    positions: Positions = Positions()
    model: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def form(self) -> str:
        return self.delta.form

    @property
    def parts(self) -> tuple[SteeringArtifact, ...]:
        """The changes at its single sites, the lowest layer first; itself where it has one site."""
        if isinstance(self.site, Site):
            return (self,)
        origin = {**self.origin, "part_of": str(self.site)}
        return tuple(
            replace(self, delta=delta, site=site, origin=origin, calibration=None)
            for delta, site in zip(parts_of(self.delta), self.site.sites, strict=True)
        )

    @classmethod
    def joined(cls, artifacts: Sequence[SteeringArtifact]) -> SteeringArtifact:
        """Changes at different sites of one model as one change with one strength; see `arithmetic.join`."""
        return arithmetic.join(artifacts)

    @property
    def id(self) -> str:
        """The change itself in 16 letters: parameters, form, site and positions."""
        place = json.dumps([self.form, asdict(self.site), asdict(self.positions)])
        return checksum(place, self.delta.tensors())[:16]

    def attach(
        self, model: CausalLM, m: Any = None, *, m1: Any = None, m2: Any = None, any_model: bool = False
    ) -> Handle:
        """Steer `model` with strength `m` until the returned handle is removed (it is a context manager).

        A change of several layers takes one `m`, or one a layer: `{14: 2.0, 15: 1.0}`. Without a strength the one in
        `calibration` is used, and a warning says which.

        Args:
            any_model: accept other weights than those the change was made for.

        Raises:
            ArtifactError: the model is another one (see `check_model`).
            ConfigError: a strength that is not finite, or not a number or `(B,)`; or none given and none kept.
        """
        sites, strength = self.resolve_all(model, any_model), self._strength(m, m1, m2, any_model)
        return attach(model, self.delta, sites, m1=strength.m1, m2=strength.m2, positions=self.positions)

    def merge(
        self, model: CausalLM, m: Any = None, *, m1: Any = None, m2: Any = None, any_model: bool = False
    ) -> Merge:
        """Write the change into `model`'s weights; `.undo()` of the result restores them bit for bit.

        One number, or one a layer, as in `attach`. Without a strength the one in `calibration` is used.

        Raises:
            ArtifactError: the model is another one (see `check_model`).
            ConfigError: a strength that is not finite; or none given and none kept.
            NotMergeableError: the change cannot be written into the weights; the message says what to do instead.
        """
        sites = self.resolve_all(model, any_model)
        return merge(model, self.delta, sites, self.positions, self._strength(m, m1, m2, any_model))

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
        """The one site in `model`; see `resolve_all`.

        Raises:
            SiteError: there are several.
        """
        found = self.resolve_all(model, any_model)
        if len(found) > 1:
            raise SiteError(f"{self.site} are several places, and here is room for one: take one of the change's parts")
        return found[0]

    def resolve_all(self, model: CausalLM, any_model: bool = False) -> tuple[ResolvedSite, ...]:
        """Its sites in `model`, after checking that the change was made for it (`check_model`) and fits them."""
        check_model(self.model, model, max(site.layer for site in self.site.sites), any_model)
        resolved = tuple(resolve_site(model, site) for site in self.site.sites)
        for delta, site in zip(parts_of(self.delta), resolved, strict=True):
            check_fit(delta, site)
        return resolved

    def for_any_model(self) -> SteeringArtifact:
        """The same change, to be used with other weights than those it was made for, on which nothing was measured."""
        return replace(self, model={k: v for k, v in self.model.items() if k != "weights"}, calibration=None)

    @property
    def file_name(self) -> str:
        """The name of its file in the folder that it is saved in."""
        return file_name(self.site)

    def save(self, folder: str | Path) -> Path:
        """Write into `folder`, atomically; returns the path of the safetensors file."""
        return write_artifact(self, Path(folder), plain=self.acts_at_block_output)

    @property
    def acts_at_block_output(self) -> bool:
        """Whether this is a vector, or one a layer, that may as well be added to the block's output (EasyEdit's
        convention)."""
        plain_mlp = adds_at_block_output(self.model)
        places = [site.component == "residual" or plain_mlp and site.component == "mlp.down_proj"
                  for site in self.site.sites]  # fmt: skip
        layers = [site.layer for site in self.site.sites]
        return self.form == "vector" and all(places) and len(set(layers)) == len(layers)

    @classmethod
    def load(cls, path: str | Path, layer: int | Sequence[int] | None = None) -> SteeringArtifact:
        """Read an artifact from its folder or file.

        Args:
            layer: which one, where the folder holds several; of a change of several layers, all of them.

        Raises:
            ArtifactError: no artifact there, several and none chosen, or a broken file.
        """
        return cls(**read_artifact(Path(path), layer))

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
        """Read a PEFT LoRA adapter: one artifact, or a list where it touches several modules and is not a change of
        several sites that `to_peft` wrote (`joined` makes one of the list).

        `m = 1` is the adapter as it stands. See `formats.peft.read_adapter` for what it reads and refuses.
        """
        from ..formats.peft import read_adapter

        read = read_adapter(folder)
        together = [one.pop("together") for one in read]
        found = [cls(**one) for one in read]
        return cls.joined(found) if len(found) == 1 or all(together) else found

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
            ConfigError: a name or licence that the hub does not take, no model named, or no token here. ArtifactError:
                a sweep of another change, or the hub cannot be reached or refuses.
        """
        from ..formats.hub import push

        return push(self, repository, base_model, license, sweep, private)

    @classmethod
    def from_hub(
        cls, repository: str, *, revision: str | None = None, layer: int | Sequence[int] | None = None
    ) -> SteeringArtifact:
        """Read a change from a repository of the hub; only its `layer_<l>.safetensors` is fetched.

        Args:
            revision: branch, tag or commit; None is the newest. layer: see `load`.

        Raises:
            ConfigError: no name of a repository. ArtifactError: not there or out of reach; see also `load`.
        """
        from ..formats.hub import fetch

        place = fetch(repository, revision)
        with place.named():
            return cls.load(place.path, layer)


def load(
    name: str | Path, *, layer: int | Sequence[int] | None = None, revision: str | None = None
) -> SteeringArtifact:
    """A change from its folder or file; or, where there is none of that name, from the hub's repository OWNER/NAME
    (`OWNER/NAME@REVISION` names a revision, too).

    Raises:
        ConfigError: a revision of what lies in a folder. ArtifactError: see `SteeringArtifact.load`, `from_hub`.
    """
    from ..formats.hub import find

    place = find(name, revision)
    with place.named():
        return SteeringArtifact.load(place.path, layer)
