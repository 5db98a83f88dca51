"""What a strength costs on a benchmark: three tiny tasks of lm-evaluation-harness on the demo model, over several m.

python examples/lm_eval/over_m.py runs/demo/vector
"""

from __future__ import annotations

import sys
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

from easyedit_split.harness.lm_eval import SteeredLM

TASKS = {"demo_reviews": "acc,none", "demo_topic": "acc,none", "demo_stories": "word_perplexity,none"}
STRENGTHS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def main(artifact: str) -> None:
    lm = SteeredLM("demo", artifact=artifact, m=0.0, batch_size=16)
    assert lm.steering.handle is not None
    manager = TaskManager(include_path=str(Path(__file__).parent), include_defaults=False)
    print("m".ljust(6), *(name.rjust(14) for name in TASKS))
    for m in STRENGTHS:
        lm.steering.handle.set_strength(m)
        found = lm_eval.simple_evaluate(
            lm, tasks=list(TASKS), task_manager=manager, apply_chat_template=True, bootstrap_iters=0, verbosity="ERROR"
        )["results"]
        print(f"{m:<6g}", *(f"{found[name][metric]:14.3f}" for name, metric in TASKS.items()))


if __name__ == "__main__":
    main(sys.argv[1])
