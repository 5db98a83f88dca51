"""EasyEdit's `train_losses.csv` of a sweep: its columns, its reduction (means over answer tokens)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..storage.files import write_text
from ..sweeps.table import SweepTable

NAME = "train_losses.csv"
_FACTORS = ("pos_steering_factors", "neg_steering_factors")
#: EasyEdit's runner makes one folder for each answer of a pair; its column names the loss of that answer "pos".
PREFERENCES = ("winning_only", "losing_only")


def write_losses(table: SweepTable, folder: Path) -> Path:
    """Both answers' losses, a row a strength and pair, `epoch` 0 and `step` the pair; returns the file's path."""
    header = ("epoch", "step", "pos_steer_loss", "neg_steer_loss", *_FACTORS)
    return _write(folder, header, ([0, i, p, n, *_tensors(m)] for m, i, p, n in _means(table)))


def write_losses_by_answer(table: SweepTable, folder: Path, form: str, method: str) -> list[Path]:
    """EasyEdit's own folders, one for each strength and answer: `<form>_<method>_m<m>_winning_only` and so on."""
    written = []
    for m in dict.fromkeys(table.factors.tolist()):
        for column, preference in enumerate(PREFERENCES, 2):
            rows = ([0, row[1], row[column], *_tensors(m)] for row in _means(table) if row[0] == m)
            own = folder / f"{form}_{method}_m{m}_{preference}"
            written.append(_write(own, ("epoch", "step", "pos_steer_loss", *_FACTORS), rows))
    return written


def _means(table: SweepTable) -> Iterator[tuple[float, int, float, float]]:
    means = table.reduced("mean")
    for m, positive, negative in zip(means.factors, means.loss_pos, means.loss_neg, strict=True):
        for pair, (p, n) in enumerate(zip(positive, negative, strict=True)):
            yield float(m), pair, float(p), float(n)


def _tensors(m: float) -> tuple[str, str]:
    """A batch of one strength, as EasyEdit prints it."""
    return f"tensor([{m:.4f}])", f"tensor([{m:.4f}])"


def _write(folder: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return write_text(folder / NAME, text.getvalue())
