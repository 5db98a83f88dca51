"""What the texts of a sweep are worth, by numbers alone: each beside that of the unsteered model's own texts.

A small model loops and rambles by itself, so no number here is judged alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.texts import SweptTexts, TextMeasures
from ..models.protocols import CausalLM, Tokenizer
from ..texts import prompting
from .perplexity import perplexity_of, text_losses
from .text import repetition

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact
    from ..data.tokens import Encoder
    from ..sweeps.table import SweepTable

SAMPLES = 24  # of the unsteered model, of all questions together, at least
SEED = 0
COMPARED = 16  # tokens a prompt on which distributions are compared
# everyday questions of different kinds, so that hardly any concept is near all of them
UNRELATED = (
    "How do I boil an egg?",
    "What is the difference between a river and a lake?",
    "Write two sentences about a train that arrives at a station.",
    "How many minutes are there in three hours?",
    "Which tools are needed to put up a shelf?",
    "Describe the colour of the sky over one day.",
)


def measure_texts(
    model: CausalLM, tokenizer: Tokenizer, artifact: SteeringArtifact, table: SweepTable, texts: SweptTexts, *,
    unrelated: Sequence[str] = UNRELATED, progress: bool = False,
) -> SweptTexts:  # fmt: skip
    """The texts with their measures at every strength (`TextMeasures` says what each is); nothing else is attached.

    Perplexity costs one pass over the different texts; divergence one pass a strength over a few short texts, the
    layers below the site once; the model's own samples are written once.

    Args:
        artifact, table: those that the texts were written with.
        unrelated: questions that have nothing to do with the concept, for the divergence.
    """
    from tqdm import tqdm

    from ..data.tokens import Encoder
    from ..generation import generate
    from ..scoring.divergence import kl_from_unsteered
    from ..scoring.dose import relative_dose

    put, questions = prompting(table), list(texts.questions)
    encoder = Encoder(tokenizer, **put)
    write: Callable[..., list[str]] = partial(generate, model, tokenizer, batch_size=SAMPLES, **put)
    own = texts.of(0.0) or write(questions, max_new_tokens=texts.max_new_tokens)
    asked = questions * -(-SAMPLES // len(questions))
    samples = write(asked, max_new_tokens=texts.max_new_tokens, temperature=1.0, seed=SEED)
    plain = write(unrelated, max_new_tokens=COMPARED)
    groups = [list(zip(asked, samples, strict=True))]
    groups += [list(zip(questions, row, strict=True)) for row in (own, *texts.answers)]
    cells = list(dict.fromkeys(cell for group in groups for cell in group))
    total = len(cells) + len(unrelated) * len(texts.m)
    with tqdm(total=total, desc="texts measured", unit="text", disable=not progress) as bar:
        asked_of, said = (list(column) for column in zip(*cells, strict=True))
        losses = dict(
            zip(cells, text_losses(model, tokenizer, asked_of, said, ended=False, done=bar.update, **put), strict=True)
        )
        compared = _ids(encoder, unrelated, plain, COMPARED)
        with artifact.attach(model, 0.0) as handle:
            divergence = kl_from_unsteered(model, compared, handle, texts.m.tolist(), bar.update)
    sampled, unsteered, *steered = (perplexity_of([losses[cell] for cell in group]) for group in groups)
    looped, *loops = (float(np.mean([repetition(text) for text in row])) for row in (own, *texts.answers))
    dose = relative_dose(model, artifact, _ids(encoder, questions, own, texts.max_new_tokens))
    measures = TextMeasures(
        perplexity=np.array(steered), sampled_perplexity=sampled, own_perplexity=unsteered,
        repetition=np.array(loops), own_repetition=looped, divergence=divergence, dose=np.abs(texts.m) * dose,
    )  # fmt: skip
    return replace(texts, measures=measures)


def _ids(
    encoder: Encoder, questions: Sequence[str], texts: Sequence[str], limit: int
) -> list[tuple[list[int], list[int]]]:
    """Tokens of the prompts and of their answers; the end-of-turn token where an answer was not cut off at `limit`."""
    found = []
    for question, text in zip(questions, texts, strict=True):
        answer = encoder.answer(text)
        found.append((encoder.prompt(question), answer[:limit] or [0]))
    return found
