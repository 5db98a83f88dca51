"""`easyedit-split export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .common import any_model_option, artifact_option, hparams_options, load, load_artifact, own_strength, settings

if TYPE_CHECKING:
    from ..changes.artifact import SteeringArtifact
    from ..formats.gguf_adapter import GgufAdapter
    from ..formats.hub import Place
    from ..formats.peft import PeftExport
    from ..settings.hyperparameters import Hyperparameters

_TARGETS = {
    "hf": "a plain Hugging Face checkpoint with the change baked in",
    "peft": "a LoRA adapter for PEFT, vLLM, llama.cpp",
    "gguf": "for llama.cpp, a control vector (vector form) or a LoRA adapter (the others)",
    "easyedit": "EasyEdit's layer_<l>.pt (vector form)",
}


def options(parser: argparse.ArgumentParser) -> None:
    artifact_option(parser, "the change to carry", required=True)
    parser.add_argument(
        "--to", required=True, choices=_TARGETS, help="; ".join(f"{k}: {v}" for k, v in _TARGETS.items())
    )
    parser.add_argument("--out", required=True, metavar="PATH", help="the new folder (gguf: the file)")
    parser.add_argument("-m", type=float, metavar="M", help="strength (default: the one that the change keeps)")
    parser.add_argument("--without-db", action="store_true", help="leave db out (m2 = 0)")
    parser.add_argument("--rank", type=int, metavar="R", help="peft and gguf, local weight: the rank")
    parser.add_argument(
        "--energy", type=float, metavar="E", help="peft and gguf, local weight: the share of |dW|^2 to keep"
    )
    parser.add_argument("--lora-bias", action="store_true", help="peft: db as lora_bias, which vLLM does not read")
    parser.add_argument("--shard", default="5GB", metavar="SIZE", help="hf: size of a shard (default 5GB)")
    any_model_option(parser)
    hparams_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..formats.hub import find

    hp = settings(arguments)
    place = find(arguments.artifact)
    artifact = load_artifact(place, hp, arguments.any_model)
    if arguments.m is None:
        arguments.m = _own_strength(arguments, artifact, place)
    write = {"hf": _hf, "peft": _peft, "gguf": _gguf, "easyedit": _easyedit}[arguments.to]
    print(write(arguments, hp, artifact))
    return 0


def _own_strength(arguments: argparse.Namespace, artifact: SteeringArtifact, place: Place) -> float:
    from ..errors import ConfigError

    kept = own_strength(artifact, place)
    if kept and arguments.without_db:
        raise ConfigError(f"{kept}: that is with db, and --without-db leaves it out; give -m")
    return kept.m if kept else 1.0


def _hf(arguments: argparse.Namespace, hp: Hyperparameters, artifact: SteeringArtifact) -> str:
    from ..formats.huggingface import check_shard_size, export_checkpoint

    size = check_shard_size(arguments.shard)
    model, tokenizer = load(hp)
    m2 = 0.0 if arguments.without_db else arguments.m
    path = export_checkpoint(model, tokenizer, artifact, arguments.out, m1=arguments.m, m2=m2, max_shard_size=size)
    return f"{artifact.form} at {artifact.site}, m = {arguments.m:g}, {hp.dtype} -> {path}"


def _peft(arguments: argparse.Namespace, hp: Hyperparameters, artifact: SteeringArtifact) -> str:
    from ..errors import ConfigError
    from ..formats.peft import to_peft

    if arguments.lora_bias and arguments.without_db:
        raise ConfigError("--lora-bias and --without-db contradict each other: give one of them")
    bias = "lora_bias" if arguments.lora_bias else "drop" if arguments.without_db else "refuse"
    model = load(hp)[0] if hp.model_name_or_path else None
    done = to_peft(
        artifact, arguments.out, arguments.m, model=model, rank=arguments.rank, energy=arguments.energy, bias=bias
    )
    return f"{_adapter(done, artifact, arguments.m)} -> {done.folder}"


def _adapter(done: PeftExport | GgufAdapter, artifact: SteeringArtifact, m: float) -> str:
    loss = f", relative error of dW {done.relative_error:.2e}, energy kept {done.energy:.6f}"
    return f"rank {done.rank}, m = {m:g}{loss if artifact.form == 'local_weight' else ''}"


def _gguf(arguments: argparse.Namespace, hp: Hyperparameters, artifact: SteeringArtifact) -> str:
    from ..errors import ConfigError
    from ..formats.gguf import to_gguf
    from ..formats.gguf_adapter import to_gguf_adapter

    if Path(arguments.out).is_dir():
        raise ConfigError(f"--out {arguments.out} is a folder: name a file in it, such as {arguments.out}/vector.gguf")
    if artifact.form != "vector":
        model = load(hp)[0] if hp.model_name_or_path else None
        options = {"rank": arguments.rank, "energy": arguments.energy, "without_db": arguments.without_db}
        done = to_gguf_adapter(artifact, arguments.out, arguments.m, model=model, **options)
        return f"LoRA adapter, {_adapter(done, artifact, arguments.m)} -> {done.path}"
    path = to_gguf(artifact, arguments.out, arguments.m)
    directions = ", ".join(f"direction.{site.layer}" for site in artifact.site.sites)
    return f"{directions}, m = {arguments.m:g} -> {path}"


def _easyedit(arguments: argparse.Namespace, hp: Hyperparameters, artifact: SteeringArtifact) -> str:
    from ..changes.provenance import source_of
    from ..errors import ArtifactError, NotMergeableError
    from ..folders import check_home, clear

    if not artifact.acts_at_block_output:
        raise NotMergeableError(
            f"EasyEdit's file is a vector added to a block's output, and form {artifact.form!r} at {artifact.site} "
            "is not: use the methods this package registers in EasyEdit, or export to hf"
        )
    scaled = artifact.scaled(arguments.m)
    try:
        check_home(Path(arguments.out), source_of(scaled))
    except ArtifactError:
        if not hp.overwrite:
            raise
        clear(Path(arguments.out))
    folder = scaled.save(Path(arguments.out)).parent
    layers = [site.layer for site in artifact.site.sites]
    named = "layer" if len(layers) == 1 else "layers"
    written = ", ".join(str(folder / f"layer_{layer}.pt") for layer in layers)
    return f"vector of {named} {', '.join(map(str, layers))}, m = {arguments.m:g} -> {written}"
