"""SPLIT and its baselines through EasyEdit's own generator and applier, with the options of EasyEdit's run_SPILT.py.

Without arguments: the demo model on its reviews. For the paper's runs, put the model into ./models/<model_name> and
the data into ./data/<dataset>/train.* and test.* (jsonl, json, csv or parquet), then for example:

    python examples/run_split.py --dataset psychopathy --model_name gemma-2-9b-it --intervention_method all --mode both
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import easyedit_split as es
from easyedit_split.data.pairs import SUFFIXES
from easyedit_split.demo import TASKS, data_path, model_path
from easyedit_split.easyedit import hparams_path
from easyedit_split.easyedit.artifacts import read_folder
from easyedit_split.easyedit.registration import require_host

FORMS = ("vector", "lora", "local_weight")
METHODS = {"split": "split", "sft": "unified_sft", "reps": "unified_reps", "diffmean": "unified_diffmean"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="reviews", choices=["psychopathy", "powerseeking", "axbench", *TASKS])
    parser.add_argument("--method", default="split", choices=[*METHODS, "all"])
    parser.add_argument("--model_name", default="demo", help="demo, gemma-2-9b-it, qwen2.5-7b-instruct, ...")
    parser.add_argument("--intervention_method", default="local_weight", choices=[*FORMS, "all"])
    parser.add_argument("--mode", default="both", choices=["generate", "apply", "both", "loss"])
    parser.add_argument("--multipliers", nargs="+", type=float, default=[1.0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, ...")
    parser.add_argument("--concept_id", type=int, default=0, help="which concept to apply, where there are several")
    parser.add_argument("--limit", type=int, default=20, help="how many test questions to answer")
    parser.add_argument("--base_dir", type=Path, default=Path(), help="where models, data and results lie")
    parser.add_argument("--dry_run", action="store_true", help="only say what would be run")
    return parser.parse_args()


def runs(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Method and form of each run; DiffMean has the vector form only."""
    for method in METHODS if chosen.method == "all" else [chosen.method]:
        for form in FORMS if chosen.intervention_method == "all" else [chosen.intervention_method]:
            if method != "diffmean" or form == "vector":
                yield method, form


def read_data(chosen: argparse.Namespace, split: str) -> Any:
    if chosen.dataset in TASKS:
        return es.load_pairs(data_path(chosen.dataset, split))
    folder = chosen.base_dir / "data" / chosen.dataset
    found = [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]
    return es.load_pairs(found[0] if found else folder / f"{split}.jsonl")


def items(pairs: list[es.PreferencePair]) -> list[dict[str, Any]]:
    """Pairs as EasyEdit's items."""
    keys = ("question", "matching", "not_matching", "concept")
    return [{key: getattr(pair, key) for key in keys} for pair in pairs]


def config(chosen: argparse.Namespace, method: str, form: str, multiplier: float) -> Any:
    """EasyEdit's own config: what its yaml files say, for one method and one multiplier."""
    from omegaconf import OmegaConf

    model = model_path() if chosen.model_name == "demo" else chosen.base_dir / "models" / chosen.model_name
    dtype = "float32" if chosen.device == "cpu" else "bfloat16"
    file = hparams_path(f"{chosen.model_name}/{chosen.dataset}/{method}_{form}")
    vectors = chosen.base_dir / "vectors" / chosen.model_name / method
    written = chosen.base_dir / "generation" / chosen.model_name / method / chosen.dataset / f"{method}_{form}"
    return OmegaConf.create(
        {
            "model_name_or_path": str(model), "dtype": dtype, "torch_dtype": dtype, "device": chosen.device, "seed": 42,
            "use_chat_template": True, "system_prompt": "", "use_cache": True, "vllm_enable": False,
            "steer_train_hparam_paths": [file], "steer_train_dataset": [chosen.dataset],
            "steer_vector_output_dirs": [str(vectors)], "apply_steer_hparam_paths": [file],
            "steer_vector_load_dir": [str(vectors / chosen.dataset / f"{METHODS[method]}_{form}")],
            "multipliers": [multiplier], "concept_id": chosen.concept_id, "generation_data": [chosen.dataset],
            "generation_data_size": chosen.limit, "generation_output_dir": str(written / f"m{multiplier}"),
            "generate_orig_output": True, "num_responses": 1, "steer_from_end_position": False,
            "generation_params": {"max_new_tokens": 64, "do_sample": False},
        }
    )  # fmt: skip


def generate(chosen: argparse.Namespace, cfg: Any) -> None:
    from steer.vector_generators.vector_generators import BaseVectorGenerator

    data = read_data(chosen, "train")
    grouped = items(data) if isinstance(data, list) else [(i, items(pairs)) for i, pairs in data.items()]
    BaseVectorGenerator(cfg).generate_vectors({chosen.dataset: grouped})


def apply(chosen: argparse.Namespace, cfg: Any) -> None:
    from steer.vector_appliers.vector_applier import BaseVectorApplier

    pairs = es.flat_pairs(read_data(chosen, "test"), chosen.concept_id)
    applier = BaseVectorApplier(cfg)
    applier.apply_vectors()
    applier.generate({chosen.dataset: [{"input": p.question, "reference_response": p.matching} for p in pairs]})


def loss(chosen: argparse.Namespace, cfg: Any) -> None:
    """Losses of the trained change at each multiplier (EasyEdit's loss mode measures a random vector instead)."""
    settings = es.load_hparams(cfg.apply_steer_hparam_paths[0])
    artifact = read_folder(cfg.steer_vector_load_dir[0], settings.layers[0], chosen.concept_id)
    model, tokenizer = es.load_model(cfg.model_name_or_path, dtype=cfg.dtype, device=chosen.device)
    pairs = es.flat_pairs(read_data(chosen, "test"), chosen.concept_id)
    table = es.sweep(model, tokenizer, pairs, artifact, chosen.multipliers, "sum")
    path = table.save(Path(cfg.steer_vector_load_dir[0]) / "losses.parquet")
    for m, p, u in zip(table.factors, table.preference().mean(axis=1), table.utility().mean(axis=1), strict=True):
        print(f"m = {m:g}: preference {p:.3f} nats, utility {u:.3f} nats")
    print(f"losses of each pair: {path}")


def main() -> int:
    chosen = options()
    try:
        if not chosen.dry_run and chosen.mode != "loss":
            require_host()
        es.register()
        for method, form in runs(chosen):
            cfg = config(chosen, method, form, chosen.multipliers[0])
            print(f"{chosen.mode}: {cfg.apply_steer_hparam_paths[0]} with {cfg.model_name_or_path}")
            if chosen.dry_run:
                continue
            if chosen.mode in ("generate", "both"):
                generate(chosen, cfg)
            if chosen.mode in ("apply", "both"):
                for multiplier in chosen.multipliers:
                    apply(chosen, config(chosen, method, form, multiplier))
            if chosen.mode == "loss":
                loss(chosen, cfg)
    except es.SteeringError as error:
        print(f"run_split: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
