"""A stand-in for EasyEdit's folder `steer`, for runs without a checkout.

It is not EasyEdit: it has only the surface that the plugin touches, written from the description of the host's
contract, in the three layouts the plugin must know. Whether the real thing behaves so is shown by `test_easyedit.py`.

`eager`: dictionaries in the registry, flat method files only, `sae_lens` imported on the way, interventions left on by
`ori_generate`. `lazy`: names of functions in `METHOD_FNS`, and a read-only mapping over them. `broken`: a registry
that asks two packages for names they do not have.
"""

from __future__ import annotations

from pathlib import Path

LAYOUTS = ("eager", "lazy", "broken")

_HPARAMS = """
from dataclasses import dataclass

@dataclass
class HyperParams:
    use_chat_template: bool = False
    system_prompt: str = ""
    seed: int = 42
    model_name_or_path: str = ""
    device: str = "cpu"
"""

_CAA_SHELL = """
from dataclasses import dataclass, field
from ...utils import HyperParams

@dataclass
class {name}(HyperParams):
    alg_name: str = "caa"
    layers: list = field(default_factory=list)
    multipliers: list = field(default_factory=list)
    steer_vector_load_dir: str = None
    steer_vector_output_dir: str = None
"""

_FUNCTION = """
def {name}(*args, **kwargs):
    return "{name}"
"""

_SAE = """
from sae_lens import SAE
from sae_lens.toolkit.pretrained_sae_loaders import load_anything

def use():
    return SAE()
"""

_EAGER = """
from ..vector_generators import CAAHyperParams
from ..vector_appliers import ApplyCAAHyperParams
from ..vector_generators import generate_caa_vectors
from ..vector_appliers import apply_caa

HYPERPARAMS_CLASS_DICT = {"caa": {"train": CAAHyperParams, "apply": ApplyCAAHyperParams}}
METHODS_CLASS_DICT = {"caa": {"train": generate_caa_vectors, "apply": apply_caa}}
"""

_LAZY = """
import importlib
from collections.abc import Mapping
from ..vector_generators.caa.generate_caa_hparam import CAAHyperParams
from ..vector_appliers.caa.apply_caa_hparam import ApplyCAAHyperParams

HYPERPARAMS_CLASS_DICT = {"caa": {"train": CAAHyperParams, "apply": ApplyCAAHyperParams}}
METHOD_FNS = {"caa": {
    "train": "steer.vector_generators.caa.generate_caa_vectors:generate_caa_vectors",
    "apply": "steer.vector_appliers.caa.apply_caa:apply_caa",
}}

class _Phases(Mapping):
    def __init__(self, name):
        self.name = name
    def __getitem__(self, phase):
        module, _, function = METHOD_FNS[self.name][phase].partition(":")
        return getattr(importlib.import_module(module), function)
    def __iter__(self):
        return iter(METHOD_FNS[self.name])
    def __len__(self):
        return len(METHOD_FNS[self.name])

class _Methods(Mapping):
    def __getitem__(self, name):
        if name not in METHOD_FNS:
            raise KeyError(name)
        return _Phases(name)
    def __iter__(self):
        return iter(METHOD_FNS)
    def __len__(self):
        return len(METHOD_FNS)

METHODS_CLASS_DICT = _Methods()
"""

_LOADERS = """
from omegaconf import OmegaConf
from .alg_dict import HYPERPARAMS_CLASS_DICT

MERGED = {merged}

def _read(path, section):
    values = OmegaConf.to_container(OmegaConf.load(path))
    if not MERGED:
        return values
    chosen = values.get(section) or {{}}
    return {{**{{k: v for k, v in values.items() if k not in ("generate", "apply")}}, **chosen}}

def _load(top_cfg, paths, phase, section):
    shells = {{}}
    for path in top_cfg[paths]:
        values = {{**_read(path, section), **top_cfg}}
        cls = HYPERPARAMS_CLASS_DICT[values["alg_name"] if MERGED else _read(path, section)["alg_name"]][phase]
        shells[values["alg_name"]] = cls(**{{k: v for k, v in values.items() if k in cls.__dataclass_fields__}})
    return shells

def load_generate_vector_hparams(top_cfg):
    shells = _load(top_cfg, "steer_train_hparam_paths", "train", "generate")
    for shell in shells.values():
        shell.steer_vector_output_dir = top_cfg["steer_vector_output_dirs"][0]
    return shells

def load_apply_vector_hparams(top_cfg):
    shells = _load(top_cfg, "apply_steer_hparam_paths", "apply", "apply")
    for shell in shells.values():
        shell.steer_vector_load_dir = top_cfg["steer_vector_load_dir"][0]
    return shells
"""

_WRAPPER = """
import torch

CLEARS_INTERVENTIONS = {clears}

class AttnWrapper(torch.nn.Module):
    def __init__(self, attn):
        super().__init__()
        self.attn = attn
    def forward(self, *args, **kwargs):
        return self.attn(*args, **kwargs)

class MLPWrapper(torch.nn.Module):
    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp
    def forward(self, hidden):
        self.mid_activations = self.mlp.act_fn(self.mlp.gate_proj(hidden)) * self.mlp.up_proj(hidden)
        return self.mlp(hidden)

class BlockOutputWrapper(torch.nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block
        block.self_attn, block.mlp = AttnWrapper(block.self_attn), MLPWrapper(block.mlp)
        self.add_activations_dict, self.intervention_dict = {{}}, {{}}
    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.block, name)
    def forward(self, *args, **kwargs):
        output = self.block(*args, **kwargs)
        for vector in self.add_activations_dict.values():
            output = output + vector
        for intervention in self.intervention_dict.values():
            output = intervention.forward(output, **kwargs)
        return output
    def set_intervention(self, intervention, method_name):
        self.intervention_dict[method_name] = intervention
    def reset(self, method_name="all"):
        if method_name == "all":
            self.add_activations_dict.clear()
            self.intervention_dict.clear()
        elif method_name == "spilt":
            self.intervention_dict.pop(method_name, None)
        else:
            self.add_activations_dict.pop(method_name, None)

class BaseModelWrapper:
    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.device, self.VLLM_model = model, tokenizer, "cpu", None
        layers = model.model.layers
        for i, layer in enumerate(layers):
            layers[i] = BlockOutputWrapper(layer)
    def set_intervention(self, layer, intervention, method_name):
        self.model.model.layers[layer].set_intervention(intervention, method_name)
    def reset(self, method_name):
        if method_name not in ("caa", "spilt"):
            raise ValueError(f"Method {{method_name}} not supported to reset")
        for layer in self.model.model.layers:
            layer.reset(method_name)
    def reset_all(self):
        for layer in self.model.model.layers:
            layer.reset("all")
    def ori_generate(self, input_ids, **kwargs):
        saved = [(layer, layer.add_activations_dict, layer.intervention_dict) for layer in self.model.model.layers]
        for layer, _, _ in saved:
            layer.add_activations_dict = {{}}
            if CLEARS_INTERVENTIONS:
                layer.intervention_dict = {{}}
        try:
            return self.model.generate(input_ids=input_ids, **kwargs)
        finally:
            for layer, added, interventions in saved:
                layer.add_activations_dict, layer.intervention_dict = added, interventions
"""

_GENERATORS_INIT = (
    "from .caa.generate_caa_hparam import *\nfrom .caa.generate_caa_vectors import *\nfrom .sta import *\n"
)
_APPLIERS_INIT = "from .caa.apply_caa_hparam import *\nfrom .caa.apply_caa import *\n"


def write_standin(root: Path, layout: str) -> Path:
    """Write the folder `steer` below `root` in one of `LAYOUTS`; returns `root`."""
    eager = layout == "eager"
    files = {
        "__init__.py": "",
        "utils/__init__.py": "from .hparams import *\nfrom .load_hparams import *\nfrom .alg_dict import *\n",
        "utils/hparams.py": _HPARAMS,
        "utils/alg_dict.py": _LAZY if layout == "lazy" else _EAGER,
        "utils/load_hparams.py": _LOADERS.format(merged=not eager),
        "vector_generators/__init__.py": _GENERATORS_INIT if eager else "",
        "vector_generators/vector_generators.py": 'REQUIRED_DATASET_METHODS = ["caa", "spilt"]\n',
        "vector_generators/caa/__init__.py": "",
        "vector_generators/caa/generate_caa_hparam.py": _CAA_SHELL.format(name="CAAHyperParams"),
        "vector_generators/caa/generate_caa_vectors.py": _FUNCTION.format(name="generate_caa_vectors"),
        "vector_generators/sta/__init__.py": "from .sae_utils import *\n",
        "vector_generators/sta/sae_utils.py": _SAE,
        "vector_appliers/__init__.py": _APPLIERS_INIT if eager else "",
        "vector_appliers/caa/__init__.py": "",
        "vector_appliers/caa/apply_caa_hparam.py": _CAA_SHELL.format(name="ApplyCAAHyperParams"),
        "vector_appliers/caa/apply_caa.py": _FUNCTION.format(name="apply_caa"),
        "models/__init__.py": "",
        "models/model_wrapper.py": _WRAPPER.format(clears=layout == "broken"),
    }
    for name, text in files.items():
        path = root / "steer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root
