"""Scores of steered text and of its losses: accuracy, judges behind one interface, utility without a judge."""

from __future__ import annotations

from ..lazy import lazy_names

_HOME = {
    "likelihood_accuracy": "accuracy",
    "generation_accuracy": "accuracy",
    "starts_with_answer": "accuracy",
    "harmonic_mean": "harmonic",
    "mean_harmonic": "harmonic",
    "Judge": "judges",
    "JudgeItem": "judges",
    "Estimate": "judges",
    "Scores": "judges",
    "Judged": "judging",
    "find_judge": "judging",
    "judge_texts": "judging",
    "RUBRICS": "rubrics",
    "Rubric": "rubrics",
    "ReplyCache": ".storage.reply_cache",
    "ApiJudge": "client",
    "JudgeSettings": "client",
    "DemoJudge": "demo",
    "text_measures": "text",
    "distinct_n": "text",
    "repetition": "text",
    "perplexity": "perplexity",
}

__all__ = sorted(_HOME)  # noqa: PLE0605


__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
