"""The paper's tables as they stand in the package, against checksums and against themselves."""

from __future__ import annotations

import hashlib

import pytest

from easyedit_split.reproduce import paper
from easyedit_split.reproduce.paper import PAPER, TABLE_2, TABLE_5, TABLE_6, beside

# SHA-256 of each table's rows, taken when every cell was compared with the printed table
CHECKED = {
    "TABLE_2": "1d3fb561f5169b39c10b470c2ced2ab4de636a124a51ba9d2bc9e856c81e51ae",
    "TABLE_3": "91e70eb1cc79c4869606d63a3490d71f3c9fcda739a97b56278c49b8c12342b0",
    "TABLE_5": "6f6acfcb9aaa6030b4ffe0c78b3d37cd12bd864f3e0247a2bcb6882930da2843",
    "TABLE_6": "80aa22286e042400b2ad023d6a92d108604983465f132f26831a01599f3817a8",
}


@pytest.mark.parametrize("name", CHECKED)
def test_the_rows_are_those_that_were_compared(name: str) -> None:
    assert hashlib.sha256(getattr(paper, name).strip().encode()).hexdigest() == CHECKED[name]


@pytest.mark.parametrize("table", [TABLE_2, TABLE_5, TABLE_6], ids=["2", "5", "6"])
def test_printed_averages_are_those_of_their_cells(table: str) -> None:
    """Each cell is rounded to 0.005 and so is the average: they differ by at most 0.01."""
    for row in table.strip().splitlines():
        cells = [float(cell) for cell in row.split()[3:]]
        assert len(cells) == 8
        for part in (cells[:4], cells[4:]):
            assert sum(part[:3]) / 3 == pytest.approx(part[3], abs=0.0101), row


def test_every_cell_has_one_place() -> None:
    """7 rows of baselines on 2 models, 6 cells in each of 3 tables; 11 rows of scores on 2 models, 4 cells."""
    assert len(PAPER) == 2 * 7 * 6 * 3 + 2 * 11 * 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("gemma-2-9b-it", "psychopathy", "vanilla", "", "accuracy"), 0.5),
        (("gemma-2-9b-it", "powerseeking", "split", "vector", "power_seeking"), 3.62),
        (("qwen2.5-7b-instruct", "axbench", "reps", "lora", "harmonic mean"), 1.4013),
        (("qwen2.5-7b-instruct", "axbench", "sft", "local_weight", "preference, test"), -12.03),
        (("gemma-2-9b-it", "psychopathy", "reps", "lora", "preference, train"), 0.83),
        (("qwen2.5-7b-instruct", "psychopathy", "sft", "lora", "preference"), 0.70),
        (("qwen2.5-7b-instruct", "powerseeking", "reps", "local_weight", "utility, test"), 0.42),
    ],
)
def test_cells_read_off_the_page(key: tuple[str, str, str, str, str], value: float) -> None:
    assert PAPER[key] == value


def test_beside_another_model_stand_both() -> None:
    assert beside("gemma-2-9b-it", "axbench", "split", "lora", "concept") == {"paper": 1.775}
    both = beside("smollm2-135m-instruct", "axbench", "split", "lora", "concept")
    assert both == {"paper, Gemma-2-9B": 1.775, "paper, Qwen2.5-7B": 1.7375}
    assert beside("demo", "reviews", "split", "lora", "concept") == {}
