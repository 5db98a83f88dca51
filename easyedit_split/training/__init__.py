"""From pairs to a change: the objectives (Eqs. 18 to 20), the loop, and DiffMean, which needs no loop."""
