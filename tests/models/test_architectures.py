"""Every architecture of transformers, tiny and random: what is accepted is right, and `docs/architectures.md` says it.

The page is written by these tests: `UPDATE_PAGES=1 pytest -m "slow or not slow" tests/models/test_architectures.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import LEFT_OUT, family_model
from laws import assert_close, encoded_pairs, noisy
from torch import Tensor
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from easyedit_split.changes.attach import attach
from easyedit_split.changes.forms import FORMS, from_tensors
from easyedit_split.errors import NotMergeableError, SiteError
from easyedit_split.models.architectures import ARCHITECTURES, QKV, SHARED_EXPERT, norm_behind
from easyedit_split.models.parts import decoder_layers
from easyedit_split.models.sites import COMPONENTS, Site, resolve_site
from easyedit_split.scoring.probe import states_can_be_kept
from easyedit_split.scoring.scorer import PairScorer

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
KINDS = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(LEFT_OUT))
OFTEN = (
    "cohere2", "deepseek_v3", "falcon", "gemma3n_text", "gemma4_text", "glm4", "gpt_oss", "gptj", "granite",
    "llama4_text", "minimax", "mixtral", "modernbert-decoder", "nemotron_h", "olmo3", "opt", "phi", "qwen3_moe",
    "qwen3_next", "smollm3", "xglm",
)  # fmt: skip
LINEAR = tuple(c for c in (*COMPONENTS, *SHARED_EXPERT) if c != "residual")
PAIRS = [encoded_pairs()[1], encoded_pairs()[4]]  # both longer than the windows, one by far
# kernels of recurrences round by more than products of matrices
TOLERANCE = {"recurrent_gemma": 1e-4, "xlstm": 1e-3}


@torch.no_grad()
def _own_losses(model: Any) -> Tensor:
    """By the model's own logits, an answer a call."""
    losses = []
    for pair in PAIRS:
        for answer in (pair.matching, pair.not_matching):
            logits = model(input_ids=torch.tensor([[*pair.prompt, *answer]]), use_cache=False).logits[0]
            wanted = torch.tensor(answer)
            losses.append(F.cross_entropy(logits[len(pair.prompt) - 1 : -1].float(), wanted, reduction="sum"))
    return torch.stack(losses)


@torch.no_grad()
def _scored(model: Any, handle: Any = None) -> tuple[Tensor, bool]:
    scorer = PairScorer(model, PAIRS, handle)
    found = scorer.losses(torch.arange(len(PAIRS)))
    return torch.stack([found.matching, found.not_matching], dim=1).flatten(), scorer.packed


def _layer_with(model: Any, component: str) -> int | None:
    """A block that has the component: blocks differ where some have experts, or a recurrence."""
    for layer in (1, 2, 3, 0):
        try:
            resolve_site(model, Site(layer, component))
        except SiteError as error:
            assert "\n" not in str(error)
        else:
            return layer
    return None


def _steer(model: Any, kind: str, form: str, component: str, layer: int, plain: Tensor) -> bool:
    """Check the form at the component; whether it can be merged."""
    tolerance = TOLERANCE.get(kind, 1e-5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    artifact = noisy(model, form, component, layer)
    with artifact.attach(model, 2.0) as handle:
        attached = _own_losses(model)
        assert_close(_scored(model, handle)[0], attached, tolerance)
        handle.set_strength(0.0)
        assert torch.equal(_own_losses(model), plain)
    assert not torch.allclose(attached, plain)
    try:
        merged = artifact.merge(model, 2.0)
    except NotMergeableError:
        assert component == "residual"
        return False
    assert_close(_own_losses(model), attached, tolerance)
    merged.undo()
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    return True


def _row(kind: str) -> str:
    """The page's row of an architecture, every claim in it checked."""
    model = family_model(kind)
    try:
        residual_layer = _layer_with(model, "residual")
        scored, packed = _scored(model)
    except SiteError as error:
        return f"| `{kind}` | {_short(error)} | | | |"
    plain = _own_losses(model)
    assert_close(scored, plain, TOLERANCE.get(kind, 1e-5))
    if residual_layer is None:
        return f"| `{kind}` | its blocks are not found | | | |"
    kept = states_can_be_kept(model, 1, packed)
    try:
        residual = "yes" if _steer(model, kind, "vector", "residual", residual_layer, plain) else "attached only"
    except SiteError as error:
        residual = "no: several streams" if "not one state a token" in str(error) else "no"
    maps = []
    for component in LINEAR:
        layer = _layer_with(model, component)
        if layer is None:
            continue
        for form in FORMS if not maps else ("local_weight",):
            try:
                assert _steer(model, kind, form, component, layer, plain)
            except SiteError:
                break
        else:
            maps.append(component)
    return f"| `{kind}` | {residual} | {_names(maps)} | {'shared' if packed else 'own'} | {'yes' if kept else 'no'} |"


def _short(error: SiteError) -> str:
    return "refused: its logits are made otherwise" if "logits" in str(error) else "refused: its blocks are not found"


def _names(maps: list[str]) -> str:
    """`mlp` down, up, gate; `self_attn` q, k, v, o; shared expert."""
    groups = {"mlp": "mlp.", "self_attn": "self_attn.", "shared expert": "mlp.shared_expert."}
    found = []
    for name, start in groups.items():
        short = [m.removeprefix(start).removesuffix("_proj") for m in maps if m.startswith(start)]
        short = [s for s in short if "." not in s]
        if short:
            found.append(f"{name}: {' '.join(short)}")
    return "; ".join(found) or "named by hand"


def _rows_on_page() -> dict[str, str]:
    lines = PAGE.read_text().splitlines() if PAGE.is_file() else []
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def _write(rows: dict[str, str]) -> None:
    order = sorted(kind for kind in rows if kind in KINDS)
    reasons: dict[str, list[str]] = {}
    for kind, reason in LEFT_OUT.items():
        reasons.setdefault(reason, []).append(f"`{kind}`")
    PAGE.write_text(
        HEAD
        + "".join(f"{rows[kind]}\n" for kind in order)
        + "\n## Not tried\n\n"
        + "".join(f"- {reason}: {', '.join(sorted(kinds))}.\n" for reason, kinds in reasons.items())
    )


HEAD = """# Architectures

What was found by running it: `tests/models/test_architectures.py` makes a tiny random model of every decoder-only
language model of transformers 5.23 (float32), compares the losses that scoring computes with the model's own at m = 0
and m = 2, attaches, merges and takes out again, and writes this table. Others are probed in the same way when they are
used, and refused where their losses do not come out as their own.

- **residual**: a vector at a block's output. "yes": attached or merged; "attached only": something stands between the
  last map and the stream (a norm, a multiplier, experts), so no weight carries it.
- **linear maps**: take vector, LoRA and local weight, attached or merged. Any other linear module of a block can be
  named by its path. Routed experts cannot: they are one tensor, and each token passes a few of them.
- **rows**: both answers of a pair in one row, or a row each (recurrences, and windows that count columns).
- **once**: the blocks below the steered one run once a pair, whatever the number of strengths.

| architecture | residual | linear maps | rows | once |
|---|---|---|---|---|
"""


@pytest.mark.parametrize(
    "kind", [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_what_the_page_says_of_an_architecture(kind: str) -> None:
    if kind not in CONFIG_MAPPING:
        pytest.skip("not in this transformers")
    found, rows = _row(kind), _rows_on_page()
    if os.environ.get("UPDATE_PAGES"):
        _write({**rows, kind: found})
    else:
        assert rows[kind] == found


def test_the_page_has_every_architecture() -> None:
    """And each that an entry names is one of them."""
    rows = _rows_on_page()
    assert set(KINDS) <= rows.keys()
    text_parts = {kind for architecture in ARCHITECTURES for kind in architecture.types}
    assert text_parts <= rows.keys() | set(LEFT_OUT) | {"gpt2"}


# --- what a name means ----------------------------------------------------------------------------------------------

FUSED: dict[str, dict[str, Any]] = {
    "phi3": {}, "gpt2": {}, "gpt_bigcode": {}, "gpt_neox": {}, "gpt_neox_japanese": {}, "bloom": {}, "persimmon": {},
    "codegen": {}, "mpt": {}, "openai-gpt": {},
    "falcon": {"multi_query": True}, "falcon, a key a head": {"multi_query": False},
    "falcon, groups": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gpt_bigcode, a key a head": {"multi_query": False},
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("component", QKV)
def test_rows_of_a_fused_projection_are_queries_keys_and_values(name: str, component: str) -> None:
    """Of two tokens, the first sees itself alone: its query matters to nobody, its key to the second, its value to
    both."""
    model = family_model(name.split(",")[0], **FUSED[name])
    tokens, artifact = torch.tensor([[5, 9]]), noisy(model, "vector", component, scale=1.0)
    assert artifact.resolve(model).rows is not None
    with torch.no_grad(), artifact.attach(model, 0.0) as handle, handle.steer_only(torch.tensor([[True, False]])):
        plain = model(input_ids=tokens, use_cache=False).logits[0]
        handle.set_strength(1.0)
        moved = (model(input_ids=tokens, use_cache=False).logits[0] - plain).abs().amax(1) > 1e-4
    assert moved.tolist() == {"q": [False, False], "k": [False, True], "v": [True, True]}[component.split(".")[1][0]]


@pytest.mark.parametrize("kind", ["phi3", "glm4", "granitemoehybrid"])
def test_rows_of_a_fused_feed_forward_are_gate_and_up(kind: str) -> None:
    """What the last map reads is proportional to `up`, and not to `gate`."""
    model = family_model(kind)
    prefix = "mlp.shared_expert." if kind.startswith("granite") else "mlp."
    layer = 1
    last = resolve_site(model, Site(layer, f"{prefix}down_proj")).module
    read: list[Tensor] = []
    watch = last.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    for name, doubles in (("up_proj", True), ("gate_proj", False)):
        site = resolve_site(model, Site(layer, prefix + name))
        assert site.rows is not None and site.linear is not None
        dw = site.linear.weight[site.rows]
        delta = from_tensors("local_weight", {"dW": dw, "db": torch.zeros(len(dw))})
        with torch.no_grad(), attach(model, delta, site, 0.0) as handle:
            read.clear()
            model(input_ids=torch.tensor([[5, 9]]), use_cache=False)
            handle.set_strength(1.0)
            model(input_ids=torch.tensor([[5, 9]]), use_cache=False)
        assert torch.allclose(read[1], 2 * read[0], atol=1e-5) is doubles
    watch.remove()


@pytest.mark.parametrize(
    ("kind", "norm"),
    [("glm4", "post_mlp_layernorm"), ("exaone4", "post_feedforward_layernorm"), ("llama", None), ("glm", None)],
)
def test_the_norm_behind_the_feed_forward(kind: str, norm: str | None) -> None:
    block = decoder_layers(family_model(kind))[1]
    assert norm_behind(block, "mlp.down_proj") == norm
    with pytest.raises(NotMergeableError) if norm else torch.no_grad():
        model = family_model(kind)
        noisy(model, "vector", "residual").merge(model, 1.0)


@pytest.mark.parametrize(("kind", "offered"), [("qwen3_moe", "'residual'"), ("qwen2_moe", "'mlp.shared_expert.down")])
def test_experts_are_refused_with_what_can_be_steered_instead(kind: str, offered: str) -> None:
    with pytest.raises(SiteError, match=f"each token passes a few of them: steer .*{offered}"):
        resolve_site(family_model(kind), Site(1))


@pytest.mark.parametrize("component", ["residual", "mlp.down_proj"])
def test_a_rule_of_positions_holds_where_the_model_calls_its_decoder_by_a_way_of_its_own(component: str) -> None:
    """OPT's language model calls `model.decoder`, and its feed-forward sees all tokens in one row."""
    model, tokens = family_model("opt"), torch.tensor([[5, 9, 7], [4, 8, 6]])
    with torch.no_grad():
        plain = model(input_ids=tokens, use_cache=False).logits
        with noisy(model, "vector", component, positions="answer").attach(model, torch.tensor([2.0, 0.0])):
            steered = model(input_ids=tokens, use_cache=False).logits
    moved = (steered - plain).abs().amax(-1) > 1e-4
    assert moved.tolist() == [[False, False, True], [False, False, False]]
