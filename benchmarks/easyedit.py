"""EasyEdit's own wrapper and `spilt` trainer on a benchmark's model and pairs, for use in a process of its own.

Needs `EASYEDIT_HOME`. Nothing of EasyEdit is changed, but that a checkout that cannot be imported is mended as
`easyedit_split.register` mends it, and that its chat template calls are answered as transformers 4 answered them.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import FACTORS, RANK, Shape, make_model, make_texts, make_tokenizer


class Host:
    """A model folder in EasyEdit's wrapper, to be trained on `texts`. Every row is padded to `length` tokens."""

    def __init__(
        self, folder: str | Path, texts: Sequence[Mapping[str, str]], layer: int, batch: int, length: int
    ) -> None:
        from omegaconf import OmegaConf

        from easyedit_split.easyedit import register

        sys.path.insert(0, os.environ["EASYEDIT_HOME"].split(os.pathsep)[0])
        register()
        self.texts, self.layer, self.batch = list(texts), layer, batch
        self.place = tempfile.TemporaryDirectory()
        named = Path(self.place.name) / f"{_family(folder)}-benchmark"  # it chooses its wrapper by name
        named.symlink_to(Path(folder).resolve())
        config = {
            "model_name_or_path": str(named), "dtype": "float32", "torch_dtype": "float32", "device": "cpu",
            "seed": 0, "use_chat_template": True, "system_prompt": "", "use_cache": True, "vllm_enable": False,
            "save_activations": False,
        }  # fmt: skip
        self.wrapper = importlib.import_module("steer.models.get_model").get_model(OmegaConf.create(config))[0]
        tokenizer = self.wrapper.tokenizer
        tokenizer.model_max_length = length
        tokenizer.apply_chat_template = functools.partial(tokenizer.apply_chat_template, return_dict=False)
        self.registry = importlib.import_module("steer.utils.alg_dict")

    def train(
        self, form: str, epochs: int, lr: float, weights: Mapping[str, float], kind: str = "", **more: Any
    ) -> None:
        """One run of `spilt`, as its own generator calls it; `kind` is its loss mode's `sft_preference_type`."""
        values = {
            "layers": [self.layer], "intervention_method": form, "intervention_components": "mlp_mid",
            "device": "cpu", "batch_size": self.batch, "n_epochs": epochs, "gradient_accumulation_steps": 1,
            "dropout": 0.0, "lr": lr, "seed": 0, "steering_factors": list(FACTORS), "preference_pairs": ["orig_add"],
            "substraction_type": "normal", "pos_loss_weight": weights["lambda_p"],
            "neg_loss_weight": weights["lambda_n"], "margin_penalty_weight": weights["gamma"],
            "margin_threshold": weights["theta"], "low_rank_dimension": 1 if form == "vector" else RANK,
            "steer_vector_output_dir": self.place.name, "use_chat_template": True, "save_vectors": True, **more,
        }  # fmt: skip
        hparams = self.registry.HYPERPARAMS_CLASS_DICT["spilt"]["train"](**values)
        hparams.lora_alpha, hparams.sft_preference_type = RANK, kind  # read, though they are no fields
        self.registry.METHODS_CLASS_DICT["spilt"]["train"](hparams, self.texts, model=self.wrapper)
        self.wrapper.reset_all()


def host_of(shape: Shape) -> Host:
    """The random model of `shape`, with its pairs."""
    place = tempfile.mkdtemp(prefix="qwen2-benchmark-")
    make_model(shape).save_pretrained(place)
    make_tokenizer().save_pretrained(place)
    host = Host(place, make_texts(shape), shape.layer, shape.batch, shape.prompt + shape.answer)
    shutil.rmtree(place)
    return host


def _family(folder: str | Path) -> str:
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["model_type"]
