"""SPLIT and its baselines through EasyEdit's own generator and applier, with the options of EasyEdit's run_SPILT.py.

Without arguments: the demo model on its reviews. For the paper's runs, put the model into ./models/<model_name> and
the data into ./data/<dataset>/ under EasyEdit's file names or the authors' own, then for example:

    python examples/run_split.py --dataset psychopathy --model_name gemma-2-9b-it --intervention_method all --mode both

EasyEdit's names are understood: --method spilt and caa, --model_name qwen2.5-7b-it. Vectors go to
vectors/<model>/<method>/<dataset>/, answers to generation/, each with its log; a table at the end says what was done.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import easyedit_split as es
from easyedit_split.commands.common import print_table
from easyedit_split.data.pairs import by_concept
from easyedit_split.data.sources import load_part
from easyedit_split.demo import TASKS, model_path
from easyedit_split.easyedit import hparams_path
from easyedit_split.easyedit.artifacts import read_folder, write_pt
from easyedit_split.easyedit.losses import write_losses, write_losses_by_answer
from easyedit_split.easyedit.names import MODEL_OF, easyedit_name
from easyedit_split.easyedit.registration import require_host
from easyedit_split.errors import ArtifactError, SteeringError, TrainingError

FORMS = ("vector", "lora", "local_weight")
METHODS = {"split": "split", "sft": "unified_sft", "reps": "unified_reps", "diffmean": "unified_diffmean"}
ALIASES = {"spilt": "split", "caa": "diffmean"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="reviews", choices=["psychopathy", "powerseeking", "axbench", *TASKS])
    parser.add_argument("--method", default="split", choices=[*METHODS, *ALIASES, "all"])
    parser.add_argument("--model_name", default="demo", help="demo, gemma-2-9b-it, qwen2.5-7b-it, ...")
    parser.add_argument("--intervention_method", default="local_weight", choices=[*FORMS, "all"])
    parser.add_argument("--mode", default="both", choices=["generate", "apply", "both", "loss"])
    parser.add_argument("--multipliers", nargs="+", type=float, default=[1.0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, ...")
    parser.add_argument("--concept_id", type=int, default=0, help="which concept to apply, where there are several")
    parser.add_argument("--limit", type=int, default=20, help="how many test questions to answer")
    parser.add_argument("--base_dir", type=Path, default=Path(), help="where models, data and results lie")
    parser.add_argument("--layout", default="own", choices=["own", "easyedit"], help="whose names of folders and files")
    parser.add_argument("--dry_run", action="store_true", help="only say what would be run")
    chosen = parser.parse_args()
    if chosen.method in ALIASES:
        print(f"note: EasyEdit's method {chosen.method} is {ALIASES[chosen.method]} here")
        chosen.method = ALIASES[chosen.method]
    return chosen


@dataclass(frozen=True)
class Run:
    """One method in one form: its files and folders."""

    chosen: argparse.Namespace
    method: str
    form: str

    @property
    def several(self) -> bool:
        return self.chosen.dataset in ("axbench", "concepts")

    @cached_property
    def file(self) -> str:
        model = MODEL_OF.get(self.chosen.model_name, self.chosen.model_name)
        return hparams_path(f"{model}/{self.chosen.dataset}/{self.method}_{self.form}")

    @property
    def names(self) -> tuple[str, str]:
        """The folder of the method, and of the result inside."""
        ours = METHODS[self.method]
        theirs = easyedit_name(ours)
        outer, inner = (theirs, theirs) if self.chosen.layout == "easyedit" else (self.method, ours)
        return outer, f"{inner}_{self.form}"

    @property
    def vectors(self) -> Path:
        return self.chosen.base_dir / "vectors" / self.chosen.model_name / self.names[0]

    def folder(self, concept: int | None = None) -> Path:
        """Of the vectors; EasyEdit keeps each of several concepts like a data set of its own."""
        own = "" if concept is None else f"_concept_{concept}"
        return self.vectors / f"{self.chosen.dataset}{own}" / self.names[1]

    @property
    def load(self) -> Path:
        split_up = self.several and self.chosen.layout == "easyedit"
        return self.folder(self.chosen.concept_id if split_up else None)

    def trained(self) -> dict[int, es.SteeringArtifact]:
        """What training left for each layer; an ArtifactError where something is missing."""
        layers = es.load_hparams(self.file).layers
        return {layer: read_folder(self.load, layer, self.chosen.concept_id) for layer in layers}

    @property
    def written(self) -> Path:
        outer, inner = self.names
        return self.chosen.base_dir / "generation" / self.chosen.model_name / outer / self.chosen.dataset / inner

    def config(self, multiplier: float) -> Any:
        """EasyEdit's own config: what its yaml files say, for one method and one multiplier."""
        from omegaconf import OmegaConf

        chosen = self.chosen
        model = model_path() if chosen.model_name == "demo" else chosen.base_dir / "models" / chosen.model_name
        dtype = "float32" if chosen.device == "cpu" else "bfloat16"
        return OmegaConf.create(
            {
                "model_name_or_path": str(model), "dtype": dtype, "torch_dtype": dtype, "device": chosen.device,
                "seed": 42, "use_chat_template": True, "system_prompt": "", "use_cache": True, "vllm_enable": False,
                "steer_train_hparam_paths": [self.file], "steer_train_dataset": [chosen.dataset],
                "steer_vector_output_dirs": [str(self.vectors)], "apply_steer_hparam_paths": [self.file],
                "save_vectors": chosen.layout == "own", "steer_vector_load_dir": [str(self.load)],
                "multipliers": [multiplier], "concept_id": chosen.concept_id, "generation_data": [chosen.dataset],
                "generation_data_size": chosen.limit, "generation_output_dir": str(self.written / f"m{multiplier}"),
                "generate_orig_output": True, "num_responses": 1, "steer_from_end_position": False,
                "generation_params": {"max_new_tokens": 64, "do_sample": False},
            }
        )  # fmt: skip


def runs(chosen: argparse.Namespace) -> Iterator[Run]:
    """DiffMean has the vector form only."""
    for method in METHODS if chosen.method == "all" else [chosen.method]:
        for form in FORMS if chosen.intervention_method == "all" else [chosen.intervention_method]:
            if method != "diffmean" or form == "vector":
                yield Run(chosen, method, form)


def read_data(chosen: argparse.Namespace, part: str) -> Any:
    source = f"demo:{chosen.dataset}" if chosen.dataset in TASKS else chosen.dataset
    return by_concept(load_part(source, part, chosen.base_dir / "data"))


def items(pairs: list[es.PreferencePair]) -> list[dict[str, Any]]:
    """Pairs as EasyEdit's items."""
    keys = ("question", "matching", "not_matching", "concept")
    return [{key: getattr(pair, key) for key in keys} for pair in pairs]


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """What is printed inside goes to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("easyedit_split")
    with path.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        handler = logging.StreamHandler(file)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        except SteeringError as error:
            file.write(f"{error}\n")
            raise
        finally:
            logger.removeHandler(handler)


def generate(run: Run, data: Any) -> Path:
    import torch
    from steer.vector_generators.vector_generators import BaseVectorGenerator

    name = run.chosen.dataset
    grouped = items(data) if isinstance(data, list) else [(i, items(pairs)) for i, pairs in data.items()]
    cfg = run.config(run.chosen.multipliers[0])
    trained = BaseVectorGenerator(cfg).generate_vectors({name: grouped})[name]
    if run.chosen.layout == "easyedit":
        for value in trained[METHODS[run.method]].values():
            for concept, artifact in value.items() if isinstance(value, dict) else [(None, value)]:
                artifact.save(run.folder(concept))
                write_pt(artifact, run.folder(concept), getattr(torch, cfg.dtype))
    return run.folder()


def apply(run: Run, pairs: list[es.PreferencePair], multiplier: float) -> Path:
    from steer.vector_appliers.vector_applier import BaseVectorApplier

    cfg = run.config(multiplier)
    trained = {f"layer_{layer}": artifact for layer, artifact in run.trained().items()}
    applier = BaseVectorApplier(cfg)
    applier.apply_vectors({METHODS[run.method]: trained})
    questions = [{"input": p.question, "reference_response": p.matching} for p in pairs]
    applier.generate({run.chosen.dataset: questions})
    return Path(cfg.generation_output_dir)


def loss(run: Run, pairs: list[es.PreferencePair]) -> Path:
    """Losses of the trained change on the test pairs (EasyEdit's loss mode measures a random vector instead)."""
    chosen, cfg, artifact = run.chosen, run.config(1.0), next(iter(run.trained().values()))
    model, tokenizer = es.load_model(cfg.model_name_or_path, dtype=cfg.dtype, device=chosen.device)
    table = es.sweep(model, tokenizer, pairs, artifact, chosen.multipliers, "sum")
    for m, p, u in zip(table.factors, table.preference().mean(axis=1), table.utility().mean(axis=1), strict=True):
        print(f"m = {m:g}: preference {p:.3f} nats, utility {u:.3f} nats")
    table.save(run.load / "losses.parquet")
    if chosen.layout == "own":
        return write_losses(table, run.load)
    outer, inner = run.names
    below = chosen.base_dir / "vectors" / chosen.model_name / "get_sft_loss" / outer / chosen.dataset / inner
    return write_losses_by_answer(table, below, run.form, outer)[0].parent.parent


def steps(run: Run, data: dict[str, Any]) -> Iterator[tuple[str, Path | None, Any]]:
    """What is to be done: its name, its log, and the work."""
    chosen, mode = run.chosen, run.chosen.mode
    if mode in ("generate", "both"):
        yield "generate", run.folder() / "train.log", lambda: generate(run, data["train"])
    if mode in ("apply", "both"):
        for m in chosen.multipliers:
            log = run.written / "logs" / f"{run.names[1]}_m{m}.log"
            yield f"apply m = {m:g}", log, lambda m=m: apply(run, data["test"], m)
    if mode == "loss":
        yield "loss", None, lambda: loss(run, data["test"])


def done(name: str, log: Path | None, work: Any) -> tuple[str, str]:
    """How a step ended, and where its result is or what is missing."""
    try:
        if log is None:
            return "done", str(work())
        with logged(log):
            return "done", str(work())
    except ArtifactError as error:
        print(f"warning: {name} skipped: {error}", file=sys.stderr)
        return "skipped", str(error)
    except TrainingError as error:
        print(f"warning: {name} failed: {error}", file=sys.stderr)
        return "failed", str(error)


def everything(chosen: argparse.Namespace) -> int:
    if not chosen.dry_run and chosen.mode != "loss":
        require_host()
    es.register()
    needed = {"generate": ["train"], "apply": ["test"], "both": ["train", "test"], "loss": ["test"]}[chosen.mode]
    data = {} if chosen.dry_run else {part: read_data(chosen, part) for part in needed}
    if "test" in data:
        data["test"] = es.flat_pairs(data["test"], chosen.concept_id if isinstance(data["test"], dict) else None)
    rows = []
    for run in runs(chosen):
        print(f"{chosen.mode}: {run.file} with {run.config(1.0).model_name_or_path}", flush=True)
        for name, log, work in steps(run, data):
            end, where = ("not run", str(log or run.load)) if chosen.dry_run else done(name, log, work)
            rows.append([run.method, run.form, name, end, where])
    print_table(["method", "form", "step", "", "result"], rows)
    return 1 if {row[3] for row in rows} & {"skipped", "failed"} else 0


def main() -> int:
    try:
        return everything(options())
    except SteeringError as error:
        print(f"run_split: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
