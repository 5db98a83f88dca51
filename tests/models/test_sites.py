"""Sites inside fused projections, against the fused weight's rows edited by hand, and models that are wrapped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from laws import assert_close, logits, noisy
from tiny import ARCHITECTURES, tiny_model, token_batch

from easyedit_split.changes.attach import ablate_direction, attach
from easyedit_split.changes.forms import make_delta
from easyedit_split.errors import NotMergeableError, SiteError
from easyedit_split.models.identity import describe_model
from easyedit_split.models.parts import decoder_layers
from easyedit_split.models.sites import COMPONENTS, Site, resolve_site

# Tiny models: width 32, feed-forward 48, 4 heads of 8; 2 key-value heads in Phi-3.
# GPT-2: [q | k | v] of 32 each. Phi-3: [q 32 | k 16 | v 16] and [gate 48 | up 48].
# GPT-NeoX: for each head of 8: q, k, v, so head h has rows 24 h + 8 part ... + 8.
ROWS = {
    ("gpt2", "self_attn.q_proj"): list(range(0, 32)),
    ("gpt2", "self_attn.k_proj"): list(range(32, 64)),
    ("gpt2", "self_attn.v_proj"): list(range(64, 96)),
    ("phi3", "self_attn.q_proj"): list(range(0, 32)),
    ("phi3", "self_attn.k_proj"): list(range(32, 48)),
    ("phi3", "self_attn.v_proj"): list(range(48, 64)),
    ("phi3", "mlp.gate_proj"): list(range(0, 48)),
    ("phi3", "mlp.up_proj"): list(range(48, 96)),
    ("gpt_neox", "self_attn.q_proj"): [24 * h + i for h in range(4) for i in range(8)],
    ("gpt_neox", "self_attn.k_proj"): [24 * h + 8 + i for h in range(4) for i in range(8)],
    ("gpt_neox", "self_attn.v_proj"): [24 * h + 16 + i for h in range(4) for i in range(8)],
}


def _edit_by_hand(module: Any, rows: list[int], dw: Any, db: Any) -> None:
    """`W[rows] += dW`, `b[rows] += db`, in the module's own orientation."""
    with torch.no_grad():
        if dw is not None:
            weight = module.weight.T if hasattr(module, "nx") else module.weight
            weight[rows] += dw
        if db is not None:
            if module.bias is None:
                module.bias = torch.nn.Parameter(torch.zeros(96 if len(module.weight) == 96 else len(module.weight)))
            module.bias[rows] += db


@pytest.mark.parametrize(("kind", "component"), list(ROWS))
@pytest.mark.parametrize("form", ["vector", "lora", "local_weight"])
def test_a_site_in_a_fused_projection_is_its_rows(lend: Any, kind: str, component: str, form: str) -> None:
    model, ids, rows = lend(kind), token_batch(), ROWS[kind, component]
    artifact = noisy(model, form, component)
    resolved = artifact.resolve(model)
    assert resolved.rows is not None and resolved.rows.tolist() == rows
    with artifact.attach(model, 1.5) as handle:
        hooked = logits(model, ids)
        handle.set_strength(torch.tensor([1.5, 0.0, 1.5]))
        by_row = logits(model, ids)
    edited = tiny_model(kind)
    dw, db = artifact.delta.weight(), artifact.delta.bias_term()
    _edit_by_hand(
        resolve_site(edited, artifact.site).module, rows, dw if dw is None else 1.5 * dw, db if db is None else 1.5 * db
    )
    expected = logits(edited, ids)
    # of a key's bias the softmax sees nothing: a shift of every score of a query (position-coded keys aside)
    assert kind == "gpt2" and component == "self_attn.k_proj" or not torch.allclose(expected, logits(model, ids))
    assert_close(hooked, expected)
    assert_close(by_row[0], expected[0])
    assert_close(by_row[1], logits(model, ids)[1])
    merged = artifact.merge(model, 1.5)
    assert_close(logits(model, ids), expected)
    merged.undo()


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_is_found_or_refused_with_its_reason(lend: Any, kind: str, component: str) -> None:
    model = lend(kind)
    if component == "mlp.gate_proj" and kind in ("gpt2", "gpt_neox"):
        with pytest.raises(SiteError, match=r"no linear module for 'mlp.gate_proj' in block 1 .*name one .* by hand"):
            resolve_site(model, Site(1, component))
        return
    resolved = resolve_site(model, Site(1, component))
    wide = {"mlp.down_proj": (48, 32), "mlp.up_proj": (32, 48), "mlp.gate_proj": (32, 48)}
    narrow = kind not in ("gpt2", "gpt_neox") and component in ("self_attn.k_proj", "self_attn.v_proj")
    expected = wide.get(component, (32, 16) if narrow else (32, 32))
    assert (resolved.d_in, resolved.d_out) == expected
    assert resolved.is_residual == (component == "residual")


@pytest.mark.parametrize("layer", [-1, 4, 99])
def test_a_layer_out_of_range(lend: Any, layer: int) -> None:
    with pytest.raises(SiteError, match=rf"layer {layer} is out of range: GPT2LMHeadModel has layers 0 to 3"):
        resolve_site(lend("gpt2"), Site(layer))


def test_a_module_may_be_named_by_hand(lend: Any) -> None:
    resolved = resolve_site(lend("gpt2"), Site(1, "mlp.c_fc"))
    assert (resolved.d_in, resolved.d_out) == (32, 48)
    with pytest.raises(SiteError, match=r"looked for mlp.w2; .* it has attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj"):
        resolve_site(lend("gpt2"), Site(1, "mlp.w2"))


def test_an_unknown_architecture_says_what_was_looked_for() -> None:
    class Odd(torch.nn.Module):
        blocks = None

    with pytest.raises(SiteError, match=r"Odd has no list of decoder blocks at layers, h, .*: this architecture"):
        decoder_layers(Odd())


# --- wrapped and compiled models ------------------------------------------------------------------------------------


def _peft(kind: str, target: str) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(tiny_model(kind), LoraConfig(r=2, target_modules=[target], init_lora_weights=False))
    return model.eval()


@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
@pytest.mark.parametrize(("kind", "target"), [("qwen2", "down_proj"), ("llama", "q_proj"), ("gpt2", "c_fc")])
def test_a_model_wrapped_by_peft_is_steered_as_the_same_model_unloaded(kind: str, target: str) -> None:
    model, ids = _peft(kind, target), token_batch()
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    artifact = noisy(model)
    with artifact.attach(model, 1.5):
        wrapped = logits(model, ids)
        generated = model.generate(input_ids=ids, max_new_tokens=3, do_sample=False, pad_token_id=259)
    assert describe_model(model)["architecture"] == kind
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trainable
    if target == "down_proj":
        with pytest.raises(NotMergeableError, match="wrapped by Linear: merge or unload that adapter first"):
            artifact.merge(model, 1.5)
    plain = model.merge_and_unload()
    with artifact.attach(plain, 1.5):
        assert_close(wrapped, logits(plain, ids))
        again = plain.generate(input_ids=ids, max_new_tokens=3, do_sample=False, pad_token_id=259)
    assert torch.equal(generated, again)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["whole", "decoder", "in place"])
def test_a_compiled_model_is_refused(how: str) -> None:
    """Compiled code ignores hooks that come later: steering would do nothing, silently."""
    model = tiny_model("qwen2")
    artifact = noisy(model)
    if how == "whole":
        model = torch.compile(model)
    elif how == "decoder":
        model.model = torch.compile(model.model)
    else:
        model.compile()
    with pytest.raises(SiteError, match="compiled with torch.compile, which ignores hooks added later"):
        artifact.attach(model, 1.0)


# --- ablation -------------------------------------------------------------------------------------------------------


def test_ablation_removes_the_component_along_the_direction() -> None:
    """h = (3, 4), v = (2, 0): the part along v is (3, 0), (0, 4) is left."""
    assert ablate_direction(torch.tensor([[3.0, 4.0]]), torch.tensor([2.0, 0.0])).tolist() == [[0.0, 4.0]]
    h = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    v = torch.randn(8, generator=torch.Generator().manual_seed(1))
    once = ablate_direction(h, v)
    assert (once @ v).abs().max() < 1e-5
    assert_close(ablate_direction(once, v), once)
    assert torch.equal(ablate_direction(h, torch.zeros(8)), h)


def test_a_zero_direction_still_gets_a_finite_gradient() -> None:
    v = torch.zeros(4, requires_grad=True)
    ablate_direction(torch.ones(2, 4), v).sum().backward()
    assert v.grad is not None and bool(torch.isfinite(v.grad).all())


@pytest.mark.parametrize(("kind", "component"), [("phi3", "self_attn.v_proj"), ("gpt_neox", "self_attn.q_proj")])
def test_ablation_in_a_fused_projection_leaves_the_other_rows(lend: Any, kind: str, component: str) -> None:
    model, ids = lend(kind), token_batch()
    site = Site(1, component)
    resolved = resolve_site(model, site)
    delta = make_delta("vector", resolved.d_in, resolved.d_out)
    with torch.no_grad():
        delta.db.normal_(generator=torch.Generator().manual_seed(0))
    outputs: list[torch.Tensor] = []
    with attach(model, delta, site, 0.0) as handle:
        watch = resolved.module.register_forward_hook(lambda m, a, out: outputs.append(out.detach()))
        logits(model, ids)
        with handle.ablating():
            logits(model, ids)
        watch.remove()
    plain, ablated = outputs
    rows = ROWS[kind, component]
    others = [i for i in range(plain.shape[-1]) if i not in rows]
    assert torch.equal(ablated[..., others], plain[..., others])
    assert_close(ablated[..., rows], ablate_direction(plain[..., rows], delta.db.detach()))
