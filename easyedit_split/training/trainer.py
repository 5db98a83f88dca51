"""One training loop for every form and objective.

The order of pairs, the strengths and the dropout of step s depend on the seed and on s alone, so that a run resumed
from a checkpoint is the run that was not interrupted, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .. import distributed
from ..changes.artifact import SteeringArtifact
from ..changes.attach import Handle, attach, check_fit
from ..changes.forms import Joint, make_delta
from ..changes.positions import Positions
from ..changes.provenance import origin_of
from ..data.pairs import PreferencePair
from ..data.tokens import EncodedPair, Encoder
from ..errors import TrainingError
from ..models.guards import check_trainable, eval_mode_frozen, random_state_kept
from ..models.identity import identify_model, model_fingerprint
from ..models.parts import context_length, device_of, unwrap
from ..models.protocols import CausalLM, Tokenizer
from ..models.sites import Site, Sites, resolve_site, sites_of
from ..scoring.scorer import PairLosses, PairScorer, joined
from ..settings.hyperparameters import TrainConfig
from ..storage.progress import taken_up
from .checkpoint import SECONDS_BETWEEN, Checkpoint
from .objectives import AnswerLosses, Objective, SplitObjective
from .plan import Draw, Plan, seed_of

MAX_GRADIENT_NORM = 1.0
# float16 gradients below 6e-8 vanish and above 65504 overflow: the largest scale that overflows nowhere is taken
FP16_LOSS_SCALES = (1024.0, 32.0, 1.0)


def train(
    model: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[PreferencePair],
    *,
    site: Site | Sites | Iterable[Site],
    form: str,
    objective: Objective | None = None,
    config: TrainConfig | None = None,
    chat: bool = True,
    system_prompt: str = "",
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
    overwrite: bool = False,
    progress: bool = False,
) -> SteeringArtifact:
    """Train a change of `form` at `site` (Eqs. 18 to 20 with `SplitObjective`, the default).

    AdamW, linear schedule to zero, gradient clipping at 1. The model stays in its dtype and is left as it was found.

    Args:
        site: one, or several: then their changes are trained together, and are one artifact.
        checkpoint: a file: progress is written there, at most every `checkpoint_seconds`, and taken up from there;
            the artifact is then that of a run that was not interrupted, bit for bit.
        overwrite: a checkpoint of another run is replaced instead of refused.
        progress: show a progress bar.

    Raises:
        SiteError, ConfigError, DataError: see `resolve_site`, `TrainConfig`, `check_trainable`, `Encoder.pairs`.
        TrainingError: a loss or gradient that is not finite, or a batch that does not fit in memory; its `artifact` is
            the change before that step.
    """
    objective, config = objective or SplitObjective(), config or TrainConfig()
    encoder = Encoder(tokenizer, chat, system_prompt)
    site = sites_of(site)
    layers = [one.layer for one in site.sites]
    resolved = [resolve_site(model, one) for one in site.sites]
    check_trainable(model, min(layers))
    generator = torch.Generator().manual_seed(config.seed)
    parts = [make_delta(form, one.d_in, one.d_out, config.rank, generator) for one in resolved]
    for part, one in zip(parts, resolved, strict=True):
        check_fit(part, one)
        part.to(device_of(one.module))
    delta = parts[0] if len(parts) == 1 else Joint(parts)
    positions = Positions(config.positions, encoder.prefix_length() if config.positions == "after_prefix" else 0)
    artifact = SteeringArtifact(
        delta,
        site,
        positions,
        identify_model(model, *layers),
        trained_origin(pairs, objective, config, chat, system_prompt),
    )
    encoded = encoder.pairs(pairs, context_length(model))
    with (
        eval_mode_frozen(model),
        random_state_kept(),
        attach(model, delta, resolved, 0.0, positions=positions) as handle,
    ):
        try:
            loop = _Loop(model, encoded, handle, objective, config)
            saved = loop.checkpoint(checkpoint, artifact, checkpoint_seconds, overwrite) if checkpoint else None
            loop.run(saved, artifact, progress)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"a batch of {config.batch_size} pairs does not fit in memory: lower batch_size and raise "
                "gradient_accumulation_steps instead",
                artifact,
            ) from None
        finally:
            delta.requires_grad_(False)
    return artifact


class _Loop:
    def __init__(
        self,
        model: CausalLM,
        encoded: Sequence[EncodedPair],
        handle: Handle,
        objective: Objective,
        config: TrainConfig,
    ) -> None:
        self.handle, self.delta, self.objective, self.config = handle, handle.delta, objective, config
        self.ablates = objective.ablates_negative_vectors and self.delta.form == "vector"
        self.scorer = PairScorer(model, encoded, handle, reuse="below" if self.ablates else "block")
        self.plan = Plan(len(encoded), config)
        self.optimizer = torch.optim.AdamW(self.delta.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.reference: PairLosses | None = None

    def checkpoint(self, path: str | Path, artifact: SteeringArtifact, seconds: float, overwrite: bool) -> Checkpoint:
        """The checkpoint file of this run."""
        inner = unwrap(self.scorer.model)
        run = {
            "form": artifact.form, "site": str(artifact.site), "model": artifact.model, "origin": artifact.origin,
            "dtype": str(inner.dtype), "device": inner.device.type, "weights": model_fingerprint(inner),
        }  # fmt: skip
        return Checkpoint(path, self.delta, self.optimizer, run, seconds, overwrite)

    def run(self, saved: Checkpoint | None, artifact: SteeringArtifact, progress: bool) -> None:
        with taken_up():
            start = saved.restore() if saved else 0
        if self.objective.needs_reference and start < self.plan.steps:
            self.reference = self._unsteered()
        for step in self._steps(start, progress):
            torch.manual_seed(seed_of(self.config, step))
            self.optimizer.param_groups[0]["lr"] = self.config.lr * (1 - step / self.plan.steps)
            with self.handle.dropping(self.config.dropout):
                self._step(step, artifact)
            if saved and distributed.rank() == 0:
                saved.step_done(step + 1, last=step + 1 == self.plan.steps)

    def _steps(self, start: int, progress: bool) -> Iterator[int]:
        steps, hidden = self.plan.steps, not progress or distributed.rank() > 0
        yield from tqdm(range(start, steps), "train", initial=start, total=steps, unit="step", disable=hidden)

    def _step(self, step: int, artifact: SteeringArtifact) -> None:
        draws = self.plan.draws(step)
        half = unwrap(self.scorer.model).dtype == torch.float16
        for scale in FP16_LOSS_SCALES if half else (1.0,):
            norm = self._gradients(step, draws, scale, artifact)
            if bool(torch.isfinite(norm)):
                self.optimizer.step()
                return
        raise TrainingError(
            f"step {step}: the gradient is not finite: lower lr or steering_factors, "
            "or load the model in float32 or bfloat16",
            artifact,
        )

    def _gradients(self, step: int, draws: Sequence[Draw], scale: float, artifact: SteeringArtifact) -> Tensor:
        """Fill in the clipped gradients of one step, computed from losses times `scale`; returns their norm."""
        self.optimizer.zero_grad()
        total = sum(len(d.pairs) for d in draws)
        scored = []
        for draw in draws:
            own = draw[distributed.shard()]
            if len(own.pairs):
                losses = self.objective(self._losses(own))
                (scale * losses.sum() / total).backward()
                scored.append((own, losses.detach()))
        distributed.reduce_gradients(self.delta.parameters())
        _check_losses(scored, step, artifact)  # last, because a GPU has to be waited for
        for parameter in self.delta.parameters():
            if scale != 1.0 and parameter.grad is not None:
                parameter.grad /= scale
        return torch.nn.utils.clip_grad_norm_(self.delta.parameters(), MAX_GRADIENT_NORM)

    def _losses(self, draw: Draw) -> AnswerLosses:
        if not self.ablates or bool((draw.signs > 0).all()):
            self.handle.set_strength(draw.signs * draw.strengths)
            losses = self.scorer.losses(draw.pairs)
        else:
            losses = self._losses_with_ablation(draw)
        if self.reference is None:
            return in_roles(losses, draw.signs)
        return in_roles(losses, draw.signs, self.reference[draw.pairs])

    def _losses_with_ablation(self, draw: Draw) -> PairLosses:
        """Mirrored pairs of the vector form: the direction is ablated instead of scaled (Wu et al., 2025)."""
        plus, minus = draw.signs > 0, draw.signs < 0
        parts = []
        for rows, way in ((plus, nullcontext()), (minus, self.handle.ablating())):
            if bool(rows.any()):
                self.handle.set_strength(draw.strengths[rows])
                with way:
                    parts.append(self.scorer.losses(draw.pairs[rows]))
        order = torch.cat([plus.nonzero(), minus.nonzero()]).squeeze(1).argsort()
        return joined(parts)[order]

    def _unsteered(self) -> PairLosses:
        """Losses of every pair without steering: constant, so computed once."""
        with torch.no_grad(), self.handle.silenced():
            batches = torch.arange(len(self.scorer.pairs)).split(self.config.batch_size)
            own = distributed.shard()
            found = [self.scorer.losses(batch) for batch in batches[own]]
            if distributed.world() == 1:
                return joined(found)
            whole = torch.zeros(4, len(self.scorer.pairs), device=next(self.delta.parameters()).device)
            for batch, losses in zip(batches[own], found, strict=True):
                whole[:, batch] = torch.stack(list(vars(losses).values())).to(whole.device)
            return PairLosses(*distributed.total(whole))


def _check_losses(scored: Sequence[tuple[Draw, Tensor]], step: int, artifact: SteeringArtifact) -> None:
    """Raise `TrainingError` where a loss is not finite, in this process or in another one."""
    finite = not scored or bool(torch.cat([losses for _, losses in scored]).isfinite().all())
    if distributed.everywhere(finite):
        return
    bad = ((draw, i) for draw, losses in scored for i in (~losses.isfinite()).nonzero()[:, 0].tolist())
    named = (f"pair {int(d.pairs[i])} at m = {float(d.signs[i] * d.strengths[i]):g}" for d, i in bad)
    which = next(named, "a pair of another process")
    raise TrainingError(
        f"step {step}: the loss of {which} is not finite: "
        "lower lr or steering_factors, or load the model in float32 or bfloat16",
        artifact,
    )


def in_roles(losses: PairLosses, signs: Tensor, reference: PairLosses | None = None) -> AnswerLosses:
    """Losses by role: under a negative sign the two answers exchange theirs."""

    def pick(first: Tensor, second: Tensor) -> Tensor:
        return torch.where(signs.to(first.device) > 0, first, second)

    return AnswerLosses(
        pick(losses.matching, losses.not_matching),
        pick(losses.not_matching, losses.matching),
        pick(losses.matching_tokens, losses.not_matching_tokens),
        pick(losses.not_matching_tokens, losses.matching_tokens),
        None if reference is None else pick(reference.matching, reference.not_matching),
        None if reference is None else pick(reference.not_matching, reference.matching),
    )


def trained_origin(
    pairs: Sequence[PreferencePair], objective: Objective, config: TrainConfig, chat: bool, system_prompt: str
) -> dict[str, Any]:
    """What an artifact remembers of its training: the same before it and after it."""
    return origin_of(pairs, _described(objective), chat, system_prompt, config=_described(config))


def _described(settings: Any) -> dict[str, Any]:
    """Settings as JSON has them, an objective's name first."""
    named = {"name": settings.name} if hasattr(settings, "name") else {}
    values = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else {}
    return {**named, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}
