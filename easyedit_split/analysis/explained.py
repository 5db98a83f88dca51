"""What the words of advice mean, for people who read them for the first time: a condition of ``reliability`` that
fails, and what stopped the strength (``Recommendation.limit``)."""

from __future__ import annotations

EXPLAINED = {
    "converged": "The search for the law's parameters did not settle. The measured points stand; what the law says "
    "between them does not.",
    "r2": "The decay law explains less than nine tenths of what was measured, so it does not describe this change. "
    "Look at the points, and try another layer or a smaller step between strengths.",
    "strengths": "A law with that many free parameters passes through any few points. With more strengths it can be "
    "wrong, and only then does its being right say something.",
    "identified": "The law's parameters say little here: several sets of them fit the points about as well, or the "
    "curve has another shape than the law. The measured points stand.",
    "rmse": "The law is off by more than the whole budget of utility, so it cannot say where the budget is spent.",
    "pairs": "An interval is over the pairs that were measured. Of a few pairs it is too narrow or too wide.",
    "budget": "For the pairs measured the loss is within the budget, but for others like them it may well not be. "
    "Measure more pairs, or take a smaller strength.",
    "gain": "The interval of the gain holds 0: other pairs may show that this strength does nothing.",
    "sign": "For some draws of the pairs a positive strength is best, for others a negative one. The change does not "
    "clearly point either way.",
    "edge": "The best strength found is the last one tried, or next to it. A better one may lie further out.",
    "gap": "Between two swept strengths utility falls steeply, and where it falls is not known. A strength between "
    "them has to be measured.",
    "zero": "Gains and losses are counted from the unsteered model, whose utility is not known here.",
    "undefined": "Utility is a log-odds and has no value where the two answers together are likelier than 1, which "
    "happens with token means. Sums have a value everywhere.",
    "own pairs": "What was trained on is known by heart. Pairs that the change has not seen tell what it does "
    "elsewhere.",
    "texts": "The change was turned further than its texts bear. Beside the unsteered model's own they are less "
    "likely or repeat themselves, or the model answers otherwise where the concept has no place. Read the texts there, "
    "or take a strength inside the band.",
    "trained": "The strength is far above those that the change was trained with. It may work; training did not see "
    "it.",
}  # fmt: skip

LIMITS = {
    "peak": "No swept strength has a higher preference.",
    "budget": "A swept strength has a higher preference, but it costs more utility than the budget allows.",
    "sweep": "Preference is highest at the last strength that was swept.",
    "none": "No swept strength raises preference within the budget.",
    "never": "No swept strength stays within the budget.",
}
