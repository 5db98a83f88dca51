"""Log-odds, the decay law, its fit, the strength it recommends: numpy and scipy only, loaded on first use."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "pref_log_odds": "logodds",
    "util_log_odds": "logodds",
    "Curve": "logodds",
    "curves": "logodds",
    "fit_preference": "fit",
    "fit_utility": "fit",
    "FitResult": "result",
    "recommend_strength": "recommend",
    "Recommendation": "recommend",
    "front": "pareto",
    "Front": "pareto",
    "preference_at_budget": "pareto",
    "regions": "region",
    "Regions": "region",
    "transfer": "splits",
    "Transfer": "splits",
    "analyse": "analysis",
    "Analysis": "analysis",
    "plot_curves": "plots",
    "plot_front": "plots",
    "plot_manifold": "plots",
    "save_figure": "plots",
    "write_report": "report",
    "report_tables": "report",
    "Report": "report",
    "Table": "tables",
    "comparison_table": "tables",
    "fit_table": "tables",
    "transfer_table": "tables",
    "strength_table": "tables",
    "budget_table": "tables",
    "parameter_table": "tables",
    "fit_manifold": "manifold",
    "measured_decay": "manifold",
    "Manifold": "manifold",
    "MeasuredDecay": "manifold",
}

__all__ = [
    "Analysis",
    "Curve",
    "FitResult",
    "Front",
    "Manifold",
    "MeasuredDecay",
    "Recommendation",
    "Regions",
    "Report",
    "Table",
    "Transfer",
    "analyse",
    "budget_table",
    "comparison_table",
    "curves",
    "fit_manifold",
    "fit_preference",
    "fit_table",
    "fit_utility",
    "front",
    "measured_decay",
    "parameter_table",
    "plot_curves",
    "plot_front",
    "plot_manifold",
    "pref_log_odds",
    "preference_at_budget",
    "recommend_strength",
    "regions",
    "report_tables",
    "save_figure",
    "strength_table",
    "transfer",
    "transfer_table",
    "util_log_odds",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
