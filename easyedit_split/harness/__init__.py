"""Steered models for other programs' benchmarks: lm-evaluation-harness and Inspect."""
