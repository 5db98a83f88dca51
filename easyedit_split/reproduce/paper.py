"""The paper's own numbers, to stand beside ours: Tables 2, 3, 5 and 6 (Xu et al., 2026), cell by cell.

Each row is model, form, method, then the numbers as printed. `PAPER` holds them by model folder, data set, method,
form (empty for vanilla) and the column of our tables that they belong to, in that column's unit: accuracy is a share
here and a percentage there. Tables 2, 5 and 6 also print averages over the three data sets; they stand in the rows
and are checked against them, and are no cell of ours.
"""

from __future__ import annotations

# R2 of fits to the training curves: preference on Psychopathy, PowerSeeking, AxBench, their mean; the same of utility
TABLE_2 = """
gemma-2-9b-it local_weight sft 0.97 0.98 0.99 0.98 0.98 0.99 0.98 0.98
gemma-2-9b-it local_weight reps 0.99 0.99 0.99 0.99 0.96 0.99 0.99 0.98
gemma-2-9b-it lora sft 0.92 0.99 0.98 0.96 0.98 0.99 0.99 0.99
gemma-2-9b-it lora reps 0.83 0.99 0.99 0.94 0.99 0.99 0.99 0.99
gemma-2-9b-it vector diffmean 0.97 0.99 0.99 0.98 0.97 0.99 0.98 0.98
gemma-2-9b-it vector sft 0.93 0.97 0.98 0.96 0.99 0.99 0.99 0.99
gemma-2-9b-it vector reps 0.99 0.98 0.95 0.97 0.99 0.99 0.99 0.99
qwen2.5-7b-instruct local_weight sft 0.99 0.99 0.99 0.99 0.99 0.99 0.98 0.99
qwen2.5-7b-instruct local_weight reps 0.99 0.99 0.99 0.99 0.99 0.99 0.97 0.98
qwen2.5-7b-instruct lora sft 0.97 0.99 0.99 0.98 0.99 0.99 0.99 0.99
qwen2.5-7b-instruct lora reps 0.94 0.99 0.99 0.97 0.98 0.96 0.99 0.98
qwen2.5-7b-instruct vector diffmean 0.98 0.95 0.98 0.97 0.99 0.99 0.97 0.98
qwen2.5-7b-instruct vector sft 0.93 0.97 0.98 0.96 0.98 0.99 0.99 0.99
qwen2.5-7b-instruct vector reps 0.97 0.98 0.93 0.96 0.99 0.98 0.99 0.99
"""

# accuracy (%) on Psychopathy; the concept score on PowerSeeking (0-4), on AxBench (0-2); the harmonic mean (0-2)
TABLE_3 = """
gemma-2-9b-it - vanilla 50.00 1.87 0.4750 0.4950
gemma-2-9b-it local_weight sft 100.00 3.50 1.6625 1.4538
gemma-2-9b-it local_weight reps 100.00 3.39 1.7750 1.6362
gemma-2-9b-it local_weight split 100.00 3.59 1.8500 1.6225
gemma-2-9b-it lora sft 100.00 3.41 1.7625 1.5188
gemma-2-9b-it lora reps 99.00 3.44 1.7375 1.6525
gemma-2-9b-it lora split 100.00 3.56 1.7750 1.6412
gemma-2-9b-it vector diffmean 53.00 2.95 1.1625 1.0550
gemma-2-9b-it vector sft 97.00 3.30 1.7000 1.4487
gemma-2-9b-it vector reps 98.00 3.61 1.7000 1.5550
gemma-2-9b-it vector split 99.00 3.62 1.8500 1.6475
qwen2.5-7b-instruct - vanilla 50.00 2.24 0.4500 0.4713
qwen2.5-7b-instruct local_weight sft 97.00 3.53 1.5375 1.1287
qwen2.5-7b-instruct local_weight reps 96.00 3.24 1.6875 1.4163
qwen2.5-7b-instruct local_weight split 98.00 3.66 1.7000 1.4325
qwen2.5-7b-instruct lora sft 99.00 3.05 1.4875 1.3175
qwen2.5-7b-instruct lora reps 100.00 3.34 1.4875 1.4013
qwen2.5-7b-instruct lora split 100.00 3.59 1.7375 1.6362
qwen2.5-7b-instruct vector diffmean 55.00 3.17 0.9500 0.9950
qwen2.5-7b-instruct vector sft 97.00 3.58 1.5750 1.5800
qwen2.5-7b-instruct vector reps 88.00 3.63 1.7375 1.6412
qwen2.5-7b-instruct vector split 98.00 3.65 1.8125 1.6500
"""

# R2 of fits to the test curves, columns as in Table 2
TABLE_5 = """
gemma-2-9b-it local_weight sft 0.96 0.96 0.99 0.97 0.98 0.93 0.99 0.97
gemma-2-9b-it local_weight reps 0.95 0.98 0.95 0.96 0.98 0.93 0.99 0.97
gemma-2-9b-it lora sft 0.99 0.99 0.98 0.99 0.98 0.98 0.99 0.98
gemma-2-9b-it lora reps 0.99 0.99 0.98 0.99 0.99 0.99 0.99 0.99
gemma-2-9b-it vector diffmean 0.89 0.99 0.99 0.96 0.94 0.99 0.98 0.97
gemma-2-9b-it vector sft 0.90 0.97 0.97 0.95 0.98 0.99 0.99 0.99
gemma-2-9b-it vector reps 0.96 0.98 0.96 0.97 0.96 0.99 0.99 0.98
qwen2.5-7b-instruct local_weight sft 0.99 0.82 0.99 0.93 0.99 0.99 0.95 0.98
qwen2.5-7b-instruct local_weight reps 0.99 0.89 0.97 0.95 0.98 0.99 0.90 0.96
qwen2.5-7b-instruct lora sft 0.70 0.95 0.98 0.88 0.99 0.99 0.99 0.99
qwen2.5-7b-instruct lora reps 0.88 0.95 0.95 0.93 0.98 0.99 0.98 0.98
qwen2.5-7b-instruct vector diffmean 0.99 0.99 0.98 0.99 0.97 0.94 0.98 0.96
qwen2.5-7b-instruct vector sft 0.99 0.99 0.97 0.98 0.97 0.95 0.99 0.97
qwen2.5-7b-instruct vector reps 0.99 0.98 0.93 0.97 0.96 0.96 0.98 0.97
"""

# R2 on the test curves of fits to the training curves, columns as in Table 2
TABLE_6 = """
gemma-2-9b-it local_weight sft 0.96 0.85 -4.25 -0.81 0.98 0.98 0.61 0.86
gemma-2-9b-it local_weight reps 0.99 0.98 -1.16 0.27 0.96 0.98 0.73 0.89
gemma-2-9b-it lora sft 0.92 0.99 -0.56 0.45 0.98 0.99 0.96 0.98
gemma-2-9b-it lora reps 0.83 0.99 0.74 0.85 0.98 0.99 0.97 0.98
gemma-2-9b-it vector diffmean -0.14 0.99 0.75 0.53 0.97 0.99 0.97 0.98
gemma-2-9b-it vector sft 0.90 0.91 0.74 0.85 0.98 0.99 0.99 0.99
gemma-2-9b-it vector reps 0.98 0.89 0.65 0.84 0.99 0.99 0.99 0.99
qwen2.5-7b-instruct local_weight sft 0.99 -0.32 -12.03 -3.79 0.99 -1.33 -3.07 -1.14
qwen2.5-7b-instruct local_weight reps 0.96 0.98 -3.82 -0.63 0.99 0.42 -1.15 0.09
qwen2.5-7b-instruct lora sft 0.97 0.98 -0.40 0.52 0.99 0.99 0.95 0.98
qwen2.5-7b-instruct lora reps 0.94 0.99 -0.13 0.60 0.98 0.96 0.96 0.97
qwen2.5-7b-instruct vector diffmean 0.86 0.94 0.80 0.87 0.37 0.99 0.97 0.78
qwen2.5-7b-instruct vector sft 0.67 0.92 0.71 0.77 0.96 0.99 0.99 0.98
qwen2.5-7b-instruct vector reps 0.97 0.93 0.74 0.88 0.99 0.98 0.98 0.98
"""

MODELS = {"gemma-2-9b-it": "Gemma-2-9B", "qwen2.5-7b-instruct": "Qwen2.5-7B"}
DATASETS = ("psychopathy", "powerseeking", "axbench")
Key = tuple[str, str, str, str, str]


def _fits(table: str, columns: tuple[str, str]) -> dict[Key, float]:
    found = {}
    for model, form, method, *cells in map(str.split, table.strip().splitlines()):
        for start, column in zip((0, 4), columns, strict=True):
            for dataset, cell in zip(DATASETS, cells[start : start + 3], strict=True):
                found[model, dataset, method, form, column] = float(cell)
    return found


def _scores(table: str) -> dict[Key, float]:
    places = (("psychopathy", "accuracy", 100), ("powerseeking", "power_seeking", 1), ("axbench", "concept", 1),
              ("axbench", "harmonic mean", 1))  # fmt: skip
    found = {}
    for model, form, method, *cells in map(str.split, table.strip().splitlines()):
        for (dataset, column, unit), cell in zip(places, cells, strict=True):
            found[model, dataset, method, form.replace("-", ""), column] = float(cell) / unit
    return found


PAPER: dict[Key, float] = {
    **_scores(TABLE_3),
    **_fits(TABLE_2, ("preference, train", "utility, train")),
    **_fits(TABLE_5, ("preference", "utility")),
    **_fits(TABLE_6, ("preference, test", "utility, test")),
}


def beside(model: str, dataset: str, method: str, form: str, column: str) -> dict[str, float]:
    """The paper's numbers for a cell of ours: those of its own model, or of both its models for any other.

    Keys are `"paper"` for the model's own number, and `"paper, Gemma-2-9B"` and `"paper, Qwen2.5-7B"` for another's.
    """
    if model in MODELS:
        own = PAPER.get((model, dataset, method, form, column))
        return {} if own is None else {"paper": own}
    known = {f"paper, {label}": PAPER.get((name, dataset, method, form, column)) for name, label in MODELS.items()}
    return {label: value for label, value in known.items() if value is not None}
