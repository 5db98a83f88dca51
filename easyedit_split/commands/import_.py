"""`easyedit-split import`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import hparams_options, load, settings


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE",
        help="a control vector (.gguf: repeng, llama.cpp), tensors (.pt, .npy, .safetensors), EasyEdit's layer_<l>.pt, "
        "an object of steering-vectors (.pt), or the folder of a PEFT adapter",
    )  # fmt: skip
    source_options(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write the change to")
    parser.epilog = "With model_name_or_path=FOLDER the width is checked, and the change knows its model again."
    hparams_options(parser)


def source_options(parser: argparse.ArgumentParser) -> None:
    """`--site` and `--pick`."""
    parser.add_argument(
        "--site", metavar="LAYER[:COMPONENT]", help="where it is added, where the file does not say (14, or "
        "14:mlp.down_proj; a vector's component is residual); or which layer's, where it holds several",
    )  # fmt: skip
    parser.add_argument("--pick", metavar="NAME", help="which one of several: a tensor's name, a row, a concept's id")


def run(arguments: argparse.Namespace) -> int:
    from ..changes.provenance import source_of
    from ..folders import check_free
    from ..importing import read_change
    from ..storage.locks import folder_lock

    hp = settings(arguments)
    model = load(hp)[0] if hp.model_name_or_path else None
    artifact = read_change(arguments.file, arguments.site, arguments.pick, model)
    out = Path(arguments.out)
    with folder_lock(out):
        check_free(out, source_of(artifact), hp.overwrite)
        path = artifact.save(out)
    print(f"{artifact.form} of width {artifact.parts[0].delta.d_out} at {artifact.site} -> {path}")
    if model is None:
        print("note: its model is not known, so nothing but the width is checked when it is used")
    return 0
