"""LoRA adapters in GGUF, the file that llama.cpp's `--lora` reads; its server takes their scale with each request.

An adapter's change is `scale * alpha / r * B A`, with one `alpha` for the whole file. It is written with `alpha = r`,
so that llama.cpp's scale is the strength (times the `m` of the export).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..changes.change import Change
from ..errors import ConfigError, NotMergeableError
from ..storage.files import write_atomically
from .adapter_factors import check_adapter, factors_of
from .gguf import gguf_package

FAMILIES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "mistral": "llama"}  # ours -> llama.cpp's
_ROTATED = "llama"  # llama.cpp keeps this one's query and key rows in the order of its own rotary embedding
_TENSORS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
_HEADS = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}


@dataclass(frozen=True)
class GgufAdapter:
    """What was written: `rank`, and how far the adapter's `dW` is from the change's (see `adapter_factors.Factors`)."""

    path: Path
    rank: int
    relative_error: float
    energy: float


def to_gguf_adapter(
    artifact: Change,
    path: str | Path,
    m: float = 1.0,
    *,
    model: Any = None,
    rank: int | None = None,
    energy: float | None = None,
    without_db: bool = False,
) -> GgufAdapter:
    """Write `artifact` as a LoRA adapter of llama.cpp, whose scale 1 is strength `m`.

    LoRA as it is; a local weight's `dW` by singular value decomposition.

    Args:
        model: the base model; needed for query and key maps of Llama and Mistral, whose rows llama.cpp reorders.
        rank, energy: for a local weight, one of the two: the rank, or the share of `|dW|^2` to keep (0 to 1; 1 is all).
        without_db: leave `db` out, for which an adapter has no place.

    Raises:
        NotMergeableError: a `db` that is not left out, a change that steers only some positions, or a map that
            llama.cpp does not have by itself.
        ConfigError: a model family other than `FAMILIES`, no `model` where it is needed, m is 0 or not finite, `rank`
            or `energy` is wrong or missing, or the package `gguf` is.
        ArtifactError: the file cannot be written.
    """
    if artifact.delta.bias_term() is not None and not without_db:
        raise NotMergeableError(
            f"a LoRA adapter has no place for the db of form {artifact.form!r}: leave it out (--without-db), or export "
            "a plain checkpoint"
        )
    check_adapter(artifact, m, "drop")
    family = str(artifact.model.get("architecture"))
    if family not in FAMILIES:
        raise ConfigError(
            f"llama.cpp's names for {family!r} are not known here, only those of {', '.join(FAMILIES)}: "
            "export to peft, and convert that with llama.cpp's convert_lora_to_gguf.py"
        )
    gguf = gguf_package()
    found = factors_of(artifact, [None] * len(artifact.parts), rank, energy)
    tensors: dict[str, Tensor] = {}
    for part, factors in zip(artifact.parts, found.parts, strict=True):
        name = _tensor(part)
        if f"{name}.lora_a" in tensors:
            raise ConfigError(f"two parts of the change lie in {name}, and an adapter has one: attach it")
        tensors[f"{name}.lora_a"] = factors.A
        tensors[f"{name}.lora_b"] = _rows(part, m * factors.rank / found.rank * factors.B, family, model)
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise ConfigError(f"m = {m} gives an adapter that is not finite in float32: use a smaller m")

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(temporary, FAMILIES[family])
        try:
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(found.rank))
            for name, tensor in tensors.items():
                writer.add_tensor(name, tensor.contiguous().numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    return GgufAdapter(write_atomically(path, write), found.rank, found.relative_error, found.energy)


def _tensor(part: Change) -> str:
    """llama.cpp's name of the weight that a part changes."""
    name = _TENSORS.get(part.site.component)
    if name is None:
        raise NotMergeableError(f"llama.cpp has no map of its own for {part.site}: export a plain checkpoint")
    return f"blk.{part.site.layer}.{name}.weight"


def _rows(part: Change, b: Tensor, family: str, model: Any) -> Tensor:
    """`b` `(d_out, r)` with its rows as llama.cpp has those of the weight: of Llama's rotated maps, each head's two
    halves are interleaved."""
    component = part.site.component
    if FAMILIES[family] != _ROTATED or component not in _HEADS:
        return b
    if model is None:
        raise ConfigError(f"llama.cpp orders the rows of {part.site} by heads, which this change does not know: "
                          "pass model= (model_name_or_path=)")  # fmt: skip
    heads = getattr(model.config, _HEADS[component])
    return b.reshape(heads, 2, -1, b.shape[1]).swapaxes(1, 2).reshape(b.shape)
