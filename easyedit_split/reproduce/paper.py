"""The paper's own numbers, to stand beside ours.

The values of the paper's tables were not available when this was written, and none is given from memory or by guess:
the mapping is empty and the tables show our numbers alone. To add one, put it here with its place in the paper:
`("gemma-2-9b-it", "psychopathy", "split", "vector", "accuracy"): 99.9`. A key is model folder, data set, method, form
(empty for vanilla) and the name of a column of the score table; the value is in that column's unit.
"""

from __future__ import annotations

PAPER: dict[tuple[str, str, str, str, str], float] = {}
NOTE = "The paper's own numbers are not part of this package (see reproduce/paper.py), so no column shows them."
