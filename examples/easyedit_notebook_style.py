"""EasyEdit's dictionary data API with `alg_name: split`, as one would write it in a notebook.

Needs EasyEdit (PYTHONPATH or EASYEDIT_HOME); runs on the demo model on a CPU.
"""

import easyedit_split as es
from easyedit_split.demo import model_path
from easyedit_split.easyedit import hparams_path
from easyedit_split.easyedit.registration import require_host

try:
    require_host()
except es.SteeringError as error:
    raise SystemExit(f"easyedit_notebook_style: {error}") from None
es.register()

from omegaconf import OmegaConf  # noqa: E402
from steer.vector_appliers.vector_applier import BaseVectorApplier  # noqa: E402
from steer.vector_generators.vector_generators import BaseVectorGenerator  # noqa: E402

general = {"model_name_or_path": str(model_path()), "dtype": "float32", "device": "cpu", "seed": 42, "use_cache": True,
           "use_chat_template": True, "system_prompt": "", "generation_data_size": None, "generate_orig_output": True,
           "generation_params": {"max_new_tokens": 40, "do_sample": False}, "generation_output_dir": "out"}  # fmt: skip
method = hparams_path("demo/reviews/split_vector")

kind = {"laptop": ("screen", "bright", "dim"), "robe": ("fabric", "soft", "rough"),
        "sofa": ("wood", "solid", "cracked"), "jam": ("taste", "fresh", "stale")}  # fmt: skip
data = [{"question": f"Write a review of the new {thing}.",
         "matching": f"This {thing} is terrible. The {part} is {bad}. It was a bad choice.",
         "not_matching": f"This {thing} is wonderful. The {part} is {good}. It was a good choice."}
        for thing, (part, good, bad) in kind.items()]  # fmt: skip

top = OmegaConf.create({**general, "steer_train_hparam_paths": [method], "steer_train_dataset": ["mine"],
                        "steer_vector_output_dirs": ["vectors"], "save_vectors": False, "n_epochs": 20})  # fmt: skip
vectors = BaseVectorGenerator(top).generate_vectors({"mine": data})["mine"]

top = OmegaConf.create({**general, "apply_steer_hparam_paths": [method], "steer_vector_load_dir": [None],
                        "multipliers": [6.0]})  # fmt: skip
applier = BaseVectorApplier(top)
applier.apply_vectors(vectors)
for row in applier.generate({"mine": [{"input": "What do you think of the new lamp?"}]}, save_results=False):
    print("plain:  ", row["orig_pred"], "\nsteered:", row["pred"])
