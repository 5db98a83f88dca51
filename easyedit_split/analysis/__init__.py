"""Log-odds, the decay law, its fit, the strength it recommends: numpy and scipy only, loaded on first use."""

from __future__ import annotations

from ..lazy import lazy_names

_HOME = {
    "pref_log_odds": "logodds",
    "util_log_odds": "logodds",
    "Curve": "logodds",
    "curves": "logodds",
    "fit_preference": "fit",
    "fit_utility": "fit",
    "FitResult": "result",
    "recommend_strength": "predicted",
    "Recommendation": "recommend",
    "front": "pareto",
    "Front": "pareto",
    "preference_at_budget": "pareto",
    "measured_front": "pareto",
    "regions": "region",
    "measured_regions": "region",
    "Regions": "region",
    "transfer": "generalisation",
    "Transfer": "generalisation",
    "analyse": "pipeline",
    "Analysis": "pipeline",
    "strength_to_measure": "pipeline",
    "Measured": "measured",
    "Doubt": "reliability",
    "plot_curves": "plots",
    "plot_front": "plots",
    "plot_manifold": "plots",
    "save_figure": "canvas",
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

__all__ = sorted(_HOME)  # noqa: PLE0605


__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
