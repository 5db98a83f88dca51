"""The model card of a change on the hub: what it is, which strength to use and why, how to use it where."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ..changes.calibration import Calibration
from ..changes.change import Change
from ..errors import ConfigError

LIBRARY = "easyedit_split"
_TAGS = {"vector": "steering-vector", "lora": "lora", "local_weight": "local-weight"}
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*", re.ASCII)
_TERMS = {
    "vector": "`db`, a steering vector",
    "lora": "`dW = B A`, a LoRA",
    "local_weight": "`dW` and `db`, a change of the weights themselves",
}


def model_card(artifact: Change, repository: str, license: str | None = None, advice: str | None = None) -> str:
    """The card as Markdown, with the hub's metadata at its head.

    Args:
        artifact: its model's name is a hub id, or a plain name where it is on no hub.
        license: the hub's word for it (`"mit"`, `"apache-2.0"`); None leaves it unsaid.
        advice: what the analysis of the sweep whose picture lies beside says; None without such a picture.

    Raises:
        ConfigError: `license` is no word of the hub's kind.
    """
    if license is not None and not _LICENSE.fullmatch(license):
        raise ConfigError(f"license {license!r} is no licence of the hub's kind: write one such as 'mit'")
    parts = [
        _metadata(artifact, license),
        f"# {repository.partition('/')[2]}",
        f"A steering change for {_text(artifact.model['name'])}, to be turned by a strength `m`: "
        "`h' = (W + m dW) h + (b + m db)`. " + _what(artifact),
        "## Which strength",
        _strength(artifact.calibration, advice is None),
        *([] if advice is None else ["![Preference and utility over the strength m](curves.png)", _text(advice)]),
        "## How it was made",
        _table(_made(artifact)),
        "## How to use it",
        *_uses(artifact, repository),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(artifact: Change, license: str | None) -> str:
    import yaml

    name = str(artifact.model["name"])
    tags = [LIBRARY, "activation-steering", _TAGS[artifact.form]]
    known = {"base_model": name, "base_model_relation": "adapter"} if "/" in name else {}
    licensed = {} if license is None else {"license": license}
    head = {**known, "library_name": LIBRARY, **licensed, "pipeline_tag": "text-generation", "tags": tags}
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _what(artifact: Change) -> str:
    concept = artifact.origin.get("concept")
    about = f" It was trained for: {_text(concept)}." if concept else ""
    return f"Here it is {_TERMS[artifact.form]}, at {artifact.site}.{about}"


def _strength(kept: Calibration | None, alone: bool) -> str:
    """What is kept of the strength; with its reason where nothing else here gives one."""
    if kept is None:
        return "It keeps no strength, so one must be given. (`sweep` and `fit --write` find one and keep it.)"
    swept = f"It was swept from {kept.swept[0]:g} to {kept.swept[1]:g}"
    band = "" if kept.band is None else f", and from {kept.band[0]:.3g} to {kept.band[1]:.3g} it kept to that budget"
    use = "is used where none is given" if kept.reliable else "is not used unseen, because it is not reliable"
    return f"{kept}. {swept}{band}. This strength {use}.{' ' + _text(kept.reason) if alone else ''}"


def _made(artifact: Change) -> dict[str, Any]:
    model, origin = artifact.model, artifact.origin
    objective, config = _mapping(origin.get("objective")), _mapping(origin.get("config"))
    shape = (
        f" ({model['architecture']}, {model['layers']} layers of width {model['width']})" if "layers" in model else ""
    )
    pairs = f"{origin['pairs']} pairs, hash {str(origin.get('pairs_sha256'))[:8]}" if origin.get("pairs") else "unknown"
    return {
        "base model": f"{model['name']}{shape}",
        "form": artifact.form,
        "site": str(artifact.site),
        "steered positions": artifact.positions.rule,
        "data": pairs,
        "objective": _settings(objective),
        "training": _settings(config),
        "imported from": _settings(_mapping(origin.get("imported"))),
        "versions": _settings(_mapping(origin.get("versions"))),
        "id": artifact.id,
    }


def _uses(artifact: Change, repository: str) -> list[str]:
    """Ways that keep the whole change; what cannot be kept somewhere is not shown there."""
    kept, model = artifact.calibration, shlex.quote(artifact.model["name"])
    known = kept is not None and kept.reliable and kept.m1 == kept.m2
    plain = "; `layer_<l>.pt` in it is what EasyEdit's `caa` applier reads" if artifact.acts_at_block_output else ""
    found = [
        "With the package `easyedit_split`:",
        _code(
            "python",
            *_loaded(artifact, repository),
            f"with artifact.attach(model{'' if known else ', m=1.0'}):",
            '    print(es.generate(model, tokenizer, ["What do you think?"]))',
        ),
        "On the command line, and in vLLM with a strength for each request:",
        _code(
            "bash",
            f"easyedit-split generate --artifact {repository}{'' if known else ' -m 1'} --prompt 'What do you think?' "
            f"model_name_or_path={model}",
            f"easyedit-split serve {repository} --model {model}",
        ),
        f"As a folder, for EasyEdit with `alg_name: split`{plain}:",
        _code("python", *_loaded(artifact, repository)[0:1], "", f'es.load({_name(repository)}).save("change")'),
    ]
    if artifact.positions.rule == "all" and "residual" not in str(artifact.site):
        m = kept.m1 if kept is not None and known else 1.0
        found += [f"In PEFT, at one strength{_SHARE.get(artifact.form, '')}:", _in_peft(artifact, repository, m)]
    return found


_SHARE = {"local_weight": ", and to 99% of the energy of `dW`"}
_TO_PEFT = {"vector": ', bias="lora_bias"', "lora": "", "local_weight": ', energy=0.99, bias="lora_bias"'}


def _in_peft(artifact: Change, repository: str, m: float) -> str:
    options = f"m={m:.6g}{_TO_PEFT[artifact.form]}"
    return _code(
        "python",
        "from peft import PeftModel",
        *_loaded(artifact, repository),
        f'artifact.to_peft("adapter", {options}, model=model)',
        'model = PeftModel.from_pretrained(model, "adapter")',
    )


def _loaded(artifact: Change, repository: str) -> list[str]:
    return [
        "import easyedit_split as es",
        "",
        f"model, tokenizer = es.load_model({_name(artifact.model['name'])})",
        f"artifact = es.load({_name(repository)})",
    ]


def _name(text: str) -> str:
    """A text as Python and as JSON write it."""
    return json.dumps(str(text))


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _table(rows: Mapping[str, Any]) -> str:
    said = [f"| {name} | {_text(value)} |" for name, value in rows.items() if value not in ("", None)]
    return "\n".join(["| | |", "|---|---|", *said])


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    """One line in which nothing is read as a table's border, as HTML or as Markdown."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line)
