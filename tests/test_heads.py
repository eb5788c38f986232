"""Multi-head attention against torch.nn.MultiheadAttention, HuggingFace's Llama and DeepSeek-V2, and autograd."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attn_guide as ag

RTOL, ATOL = 1e-12, 1e-13


def sample(seed: int, *, kdim: int = 12, vdim: int = 12, batch: tuple = (2,), n: int = 4, m: int = 6):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(*batch, n, 12)),
        rng.normal(size=(*batch, m, kdim)),
        rng.normal(size=(*batch, m, vdim)),
    )


def torch_layer(torch, seed: int = 0, h: int = 3, **options):
    torch.manual_seed(seed)
    layer = torch.nn.MultiheadAttention(12, h, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "bias" in name:
                parameter.normal_()  # PyTorch starts them at 0, which would hide a mistake
    return layer


# ------------------------------------------------------------------------------------------ split and merge


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(0, 3), max_size=2))
def test_split_and_merge_are_inverse_and_keep_columns_together(n, h, d, lead):
    x = np.random.default_rng(0).normal(size=(*lead, n, h * d))
    heads = ag.split_heads(x, h)
    assert heads.shape == (*lead, h, n, d)
    for i in range(h):
        np.testing.assert_array_equal(heads[..., i, :, :], x[..., i * d : (i + 1) * d])
    np.testing.assert_array_equal(ag.merge_heads(heads), x)


# ------------------------------------------------------------------------------------------ torch


@pytest.mark.parametrize("h", [1, 3, 12])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kdim", "vdim"), [(12, 12), (5, 7), (12, 7)])
@pytest.mark.parametrize("batch_first", [True, False])
def test_equals_torch_multihead_attention(h, bias, kdim, vdim, batch_first):
    torch = pytest.importorskip("torch")
    layer = torch_layer(torch, h=h, bias=bias, kdim=kdim, vdim=vdim, batch_first=batch_first)
    params = ag.MultiHeadParams.from_torch_state_dict(layer.state_dict(), h)
    q, k, v = sample(1, kdim=kdim, vdim=vdim)
    order = (0, 1, 2) if batch_first else (1, 0, 2)
    given_ = [torch.tensor(x.transpose(order)) for x in (q, k, v)]
    with torch.no_grad():
        out, per_head = layer(*given_, average_attn_weights=False)
        fast, averaged = layer(*given_)
        quiet, _ = layer(*given_, need_weights=False)
    ours, weights = ag.multi_head_attention(q, k, v, params, return_weights=True)
    for theirs in (out, fast, quiet):
        np.testing.assert_allclose(ours, theirs.numpy().transpose(order), rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(weights, per_head.numpy(), rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(weights.mean(axis=-3), averaged.numpy(), rtol=RTOL, atol=ATOL)
    assert params.count() == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("batch", [(), (3,)])
def test_masks_equal_torch_whose_boolean_masks_mean_the_opposite(batch):
    torch = pytest.importorskip("torch")
    layer = torch_layer(torch, batch_first=True)
    params = ag.MultiHeadParams.from_torch_state_dict(layer.state_dict(), 3)
    x, _, _ = sample(2, batch=batch)
    allowed = ag.causal.materialize(4)
    bias = np.random.default_rng(3).normal(size=(4, 4))
    t = torch.tensor(x)
    with torch.no_grad():
        boolean = layer(t, t, t, attn_mask=torch.tensor(~allowed))[0].numpy()
        added = layer(t, t, t, attn_mask=torch.tensor(bias))[0].numpy()
    for ours in (
        ag.multi_head_attention(x, x, x, params, allowed),
        ag.multi_head_attention(x, x, x, params, is_causal=True),
        ag.multi_head_attention(x, x, x, params, mask_mod=ag.causal),
    ):
        np.testing.assert_allclose(ours, boolean, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(ag.multi_head_attention(x, x, x, params, bias), added, rtol=RTOL, atol=ATOL)
    if batch:
        padding = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
        with torch.no_grad():
            theirs = layer(t, t, t, key_padding_mask=torch.tensor(~padding))[0].numpy()
        ours = ag.multi_head_attention(x, x, x, params, padding[:, None, None, :])
        np.testing.assert_allclose(ours, theirs, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 7}, {"kdim": 12, "vdim": 7}])
def test_state_dict_round_trip_loads_into_torch_strictly(options):
    torch = pytest.importorskip("torch")
    layer = torch_layer(torch, **options)
    state = layer.state_dict(prefix="self_attn.")
    params = ag.MultiHeadParams.from_torch_state_dict(state, 3, prefix="self_attn.")
    back = params.to_torch_state_dict()
    fresh = torch_layer(torch, seed=9, **options)
    fresh.load_state_dict({name: torch.tensor(a) for name, a in back.items()}, strict=True)
    for name, tensor in layer.state_dict().items():
        np.testing.assert_array_equal(fresh.state_dict()[name].numpy(), tensor.numpy())
    assert list(params.to_torch_state_dict(prefix="self_attn.")) == list(state)


def test_float32_is_within_rounding_of_torch_and_keeps_its_dtype():
    torch = pytest.importorskip("torch")
    layer = torch_layer(torch, batch_first=True).float()
    params = ag.MultiHeadParams.from_torch_state_dict(layer.state_dict(), 3)
    x = sample(4)[0].astype(np.float32)
    ours = ag.multi_head_attention(x, x, x, params)
    theirs = layer(*[torch.tensor(x)] * 3)[0].detach().numpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    half = ag.multi_head_attention(*[x.astype(np.float16)] * 3, params.astype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.astype(np.float32), theirs, atol=2e-2)


@pytest.mark.parametrize("shapes", [{}, {"kdim": 5, "vdim": 7}])
def test_starting_weights_have_torch_bounds(shapes):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(96, 4, **shapes)
    state = {name: p.detach().numpy() for name, p in layer.state_dict().items()}
    theirs = ag.MultiHeadParams.from_torch_state_dict(state, 4)
    rng = np.random.default_rng(0)
    ours = ag.init_multi_head(96, 4, d_key=shapes.get("kdim"), d_value=shapes.get("vdim"), rng=rng)
    for name in ("w_q", "w_k", "w_v", "w_o"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.shape == b.shape
        # The largest of N uniform draws lies within bound * (1 - 10 / N) except with probability e^-10.
        assert abs(np.abs(a).max() / np.abs(b).max() - 1) < 10 / min(a.size, b.size) * 2
        assert abs(a.std() / b.std() - 1) < 6 / np.sqrt(a.size)
    assert not ours.b_q.any()
    assert not theirs.b_q.any()


# ------------------------------------------------------------------------------------------ identities


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3), (6, 1), (4, 4)]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_joining_then_projecting_is_the_sum_of_what_heads_send(heads, d_k, d_v, n, m, bias, seed):
    h, h_kv = heads
    rng = np.random.default_rng(seed)
    params = ag.init_multi_head(7, h, num_kv_heads=h_kv, d_k=d_k, d_v=d_v, d_key=5, d_value=3, bias=bias, rng=rng)
    q, k, v = rng.normal(size=(2, n, 7)), rng.normal(size=(2, m, 5)), rng.normal(size=(2, m, 3))
    out, weights = ag.multi_head_attention(q, k, v, params, return_weights=True)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=RTOL)
    total = np.zeros_like(out) if params.b_o is None else np.broadcast_to(params.b_o, out.shape).copy()
    for i in range(h):
        j = i // (h // h_kv)  # the key/value head that query head i reads
        value = v @ params.w_v[:, j * d_v : (j + 1) * d_v] + (params.b_v[j * d_v : (j + 1) * d_v] if bias else 0)
        total += weights[..., i, :, :] @ value @ params.w_o[i * d_v : (i + 1) * d_v]
    np.testing.assert_allclose(out, total, rtol=1e-11, atol=ATOL)
    alone = [ag.multi_head_attention(q, k, v, params, head_mask=np.eye(h)[i]) for i in range(h)]
    shift = 0 if params.b_o is None else params.b_o
    np.testing.assert_allclose(sum(a - shift for a in alone) + shift, out, rtol=1e-11, atol=ATOL)


def test_grouped_heads_equal_full_heads_with_repeated_weights():
    rng = np.random.default_rng(5)
    params = ag.init_multi_head(12, 6, num_kv_heads=2, rng=rng)
    x = rng.normal(size=(3, 5, 12))

    def repeat(w):  # each key/value head three times in a row
        return np.repeat(w.reshape(*w.shape[:-1], 2, -1), 3, axis=-2).reshape(*w.shape[:-1], -1)

    full = ag.MultiHeadParams(
        params.w_q,
        repeat(params.w_k),
        repeat(params.w_v),
        params.w_o,
        6,
        b_q=params.b_q,
        b_k=repeat(params.b_k),
        b_v=repeat(params.b_v),
        b_o=params.b_o,
    )
    np.testing.assert_allclose(
        ag.multi_head_attention(x, x, x, params, is_causal=True),
        ag.multi_head_attention(x, x, x, full, is_causal=True),
        rtol=RTOL,
        atol=ATOL,
    )


def test_permuting_heads_with_their_weights_changes_nothing():
    rng = np.random.default_rng(6)
    params = ag.init_multi_head(8, 4, rng=rng)
    x = rng.normal(size=(5, 8))
    order = [2, 0, 3, 1]
    columns = np.concatenate([np.arange(2 * i, 2 * i + 2) for i in order])
    shuffled = ag.MultiHeadParams(
        *(w[:, columns] for w in (params.w_q, params.w_k, params.w_v)),
        params.w_o[columns],
        4,
        b_q=params.b_q[columns],
        b_k=params.b_k[columns],
        b_v=params.b_v[columns],
        b_o=params.b_o,
    )
    a, w_a = ag.multi_head_attention(x, x, x, params, return_weights=True)
    b, w_b = ag.multi_head_attention(x, x, x, shuffled, return_weights=True)
    np.testing.assert_allclose(a, b, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(w_a[order], w_b, rtol=RTOL, atol=ATOL)


def test_head_mask_broadcasts_over_the_batch_and_scales():
    rng = np.random.default_rng(7)
    params = ag.init_multi_head(8, 2, bias=False, rng=rng)
    x = rng.normal(size=(3, 4, 8))
    per_item = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    out = ag.multi_head_attention(x, x, x, params, head_mask=per_item)
    for i, mask in enumerate(per_item):
        one = ag.multi_head_attention(x[i], x[i], x[i], params, head_mask=mask)
        np.testing.assert_allclose(out[i], one, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(2 * out[2], ag.multi_head_attention(x[2], x[2], x[2], params), rtol=RTOL, atol=ATOL)
    assert not ag.multi_head_attention(x, x, x, params, head_mask=[False, False]).any()


def test_the_number_of_heads_changes_neither_parameters_nor_shapes():
    counts = {h: ag.init_multi_head(24, h, rng=np.random.default_rng(0)).count() for h in (1, 2, 3, 24)}
    assert set(counts.values()) == {4 * 24 * 24 + 4 * 24}


# ------------------------------------------------------------------------------------------ HuggingFace


@pytest.mark.parametrize("h_kv", [1, 2, 4])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_equals_huggingface_llama_attention(h_kv, implementation):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=24,
        num_attention_heads=4,
        num_key_value_heads=h_kv,
        head_dim=6,
        num_hidden_layers=1,
        attention_bias=True,
        max_position_embeddings=64,
        attn_implementation=implementation,
    )
    from transformers.models.llama.modeling_llama import LlamaAttention

    torch.manual_seed(0)
    layer = LlamaAttention(config, 0).double()
    w = {name: p.detach().numpy().T for name, p in layer.named_parameters()}
    params = ag.MultiHeadParams(
        *(w[f"{x}_proj.weight"] for x in "qkvo"), 4, h_kv, *(w[f"{x}_proj.bias"] for x in "qkvo")
    )
    x = np.random.default_rng(0).normal(size=(2, 9, 24))
    # HF's own tables are float32; its layer takes them as an argument, so it is given float64 ones.
    angle = torch.outer(torch.arange(9).double(), 10000.0 ** (-torch.arange(0, 6, 2).double() / 6)).repeat(1, 2)[None]
    hidden = torch.where(torch.ones(9, 9).tril().bool(), 0.0, -torch.inf).double()[None, None]
    with torch.no_grad():
        theirs, weights = layer(torch.tensor(x), (angle.cos(), angle.sin()), hidden)
    out, per_head = ag.multi_head_attention(x, x, x, params, is_causal=True, rope=ag.apply_rope, return_weights=True)
    if implementation == "sdpa":
        np.testing.assert_allclose(out, theirs.numpy(), rtol=RTOL, atol=ATOL)
    else:  # takes its softmax in float32 whatever the dtype of the model
        np.testing.assert_allclose(out, theirs.numpy(), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(per_head, weights.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("q_lora_rank", [None, 10])
def test_latent_attention_equals_huggingface_deepseek_v2(q_lora_rank):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "DeepseekV2Config"):
        pytest.skip("this transformers has no DeepSeek-V2")
    config = transformers.DeepseekV2Config(
        hidden_size=24,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_hidden_layers=1,
        q_lora_rank=q_lora_rank,
        kv_lora_rank=8,
        qk_nope_head_dim=6,
        qk_rope_head_dim=4,
        v_head_dim=5,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention

    torch.manual_seed(0)
    layer = DeepseekV2Attention(config, 0).double()
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if "norm" in name:
                p.normal_(1.0, 0.3)
    w = {name: p.detach().numpy().T for name, p in layer.named_parameters()}
    down, up = w["kv_a_proj_with_mqa.weight"], w["kv_b_proj.weight"].reshape(8, 4, 11)
    query = w["q_proj.weight" if q_lora_rank is None else "q_b_proj.weight"]
    query = query.reshape(-1, 4, 10)
    params = ag.LatentParams(
        w_dkv=down[:, :8],
        w_uk=up[:, :, :6].reshape(8, 24),
        w_uv=up[:, :, 6:].reshape(8, 20),
        w_kr=down[:, 8:],
        w_uq=query[:, :, :6].reshape(-1, 24),
        w_qr=query[:, :, 6:].reshape(-1, 16),
        w_o=w["o_proj.weight"],
        num_heads=4,
        w_dq=w.get("q_a_proj.weight"),
        norm_q=w.get("q_a_layernorm.weight"),
        norm_kv=w["kv_a_layernorm.weight"],
        eps=layer.kv_a_layernorm.variance_epsilon,
    )
    x = np.random.default_rng(0).normal(size=(2, 7, 24))
    angle = torch.outer(torch.arange(7).double(), 10000.0 ** (-torch.arange(0, 4, 2).double() / 4))
    hidden = torch.where(torch.ones(7, 7).tril().bool(), 0.0, -torch.inf).double()
    with torch.no_grad():
        theirs = layer(
            torch.tensor(x),
            attention_mask=hidden,
            position_embeddings=torch.polar(torch.ones_like(angle), angle)[None],
        )[0].numpy()

    def rope(a, at):
        return ag.apply_rope(a, at, interleaved=True)

    for absorbed in (False, True):
        ours = ag.multi_head_latent_attention(x, params, is_causal=True, rope=rope, absorbed=absorbed)
        # HF normalises, rotates and takes its softmax in float32.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-7)


# ------------------------------------------------------------------------------------------ latent attention


def latent(seed: int = 0, **options):
    rng = np.random.default_rng(seed)
    widths = {"d_c": 5, "d_nope": 3, "d_rope": 4, "d_v": 2} | options
    params = ag.init_multi_head_latent(8, 3, rng=rng, **widths)
    return params, rng.normal(size=(2, 6, 8))


@pytest.mark.parametrize("options", [{}, {"d_cq": 7}, {"norm": True}, {"d_cq": 7, "norm": True}])
@pytest.mark.parametrize("masking", [{}, {"is_causal": True}, {"mask_mod": ag.causal & ag.sliding_window(1, 0)}])
def test_absorbed_latent_attention_equals_the_expanded_form(options, masking):
    params, x = latent(**options)
    one = ag.multi_head_latent_attention(x, params, rope=ag.apply_rope, return_weights=True, **masking)
    two = ag.multi_head_latent_attention(x, params, rope=ag.apply_rope, return_weights=True, absorbed=True, **masking)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=ATOL)


def test_latent_attention_follows_the_paper_head_by_head():
    params, x = latent(d_cq=7)
    x = x[0]
    c_q, c_kv = x @ params.w_dq, x @ params.w_dkv
    k_r = ag.apply_rope(x @ params.w_kr)
    total = np.zeros((6, 8))
    for i in range(3):
        q_c, q_r = c_q @ params.w_uq[:, 3 * i : 3 * i + 3], ag.apply_rope(c_q @ params.w_qr[:, 4 * i : 4 * i + 4])
        k_c, v_c = c_kv @ params.w_uk[:, 3 * i : 3 * i + 3], c_kv @ params.w_uv[:, 2 * i : 2 * i + 2]
        scores = (q_c @ k_c.T + q_r @ k_r.T) / np.sqrt(3 + 4)
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        total += weights @ v_c @ params.w_o[2 * i : 2 * i + 2]
    np.testing.assert_allclose(
        ag.multi_head_latent_attention(x, params, rope=ag.apply_rope), total, rtol=1e-11, atol=ATOL
    )


def test_decoding_from_latent_vectors_equals_the_full_pass():
    params, x = latent(norm=True)
    whole = ag.multi_head_latent_attention(x, params, is_causal=True, rope=ag.apply_rope)
    cache = ag.KVCache()
    up_k = ag.split_heads(params.w_uk, 3).swapaxes(-1, -2)  # (h, d_nope, d_c)
    up_v = ag.split_heads(params.w_uv, 3)  # (h, d_c, d_v)
    for t in range(6):
        row = x[:, t : t + 1]
        c, k_r = params.compress(row, ag.apply_rope, start=t)
        content, q_r = params.queries(row, ag.apply_rope, start=t)
        heads = cache.attend(
            np.concatenate([content @ up_k, q_r], axis=-1),
            np.concatenate([c, k_r], axis=-1)[:, None],
            c[:, None],
            scale=1 / np.sqrt(7),
        )
        np.testing.assert_allclose(
            ag.merge_heads(heads @ up_v) @ params.w_o, whole[:, t : t + 1], rtol=1e-11, atol=ATOL
        )
    # d_c + d_rope numbers per token are what must be kept; the values are a view of the keys' first d_c.
    assert cache.key.shape == (2, 1, 6, 9)
    np.testing.assert_array_equal(cache.value, cache.key[..., :5])


def test_latent_attention_keeps_float32():
    params, x = latent(norm=True, d_cq=4)
    single = params.astype(np.float32)
    for absorbed in (False, True):
        out = ag.multi_head_latent_attention(x.astype(np.float32), single, rope=ag.apply_rope, absorbed=absorbed)
        assert out.dtype == np.float32
        np.testing.assert_allclose(
            out, ag.multi_head_latent_attention(x, params, rope=ag.apply_rope), rtol=1e-4, atol=1e-5
        )


# ------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"softcap": 2.0, "scale": 0.7}, {"mask_mod": ~ag.sliding_window(0, 0)}]
)
def test_gradients_equal_torch_autograd(bias, options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    params = ag.init_multi_head(8, 4, num_kv_heads=2, d_k=3, d_v=5, d_key=6, d_value=7, bias=bias, rng=rng)
    q, k, v = rng.normal(size=(2, 4, 8)), rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 7))
    g = rng.normal(size=(2, 4, 8))
    names = [n for n in ("w_q", "w_k", "w_v", "w_o", "b_q", "b_k", "b_v", "b_o") if getattr(params, n) is not None]
    if bias:
        values = {n: rng.normal(size=getattr(params, n).shape) for n in names}
        params = ag.MultiHeadParams(**values, num_heads=4, num_kv_heads=2)
    t = {n: torch.tensor(getattr(params, n), requires_grad=True) for n in names}
    tq, tk, tv = (torch.tensor(x, requires_grad=True) for x in (q, k, v))

    def heads(x, letter, count):
        y = x @ t[f"w_{letter}"] + (t[f"b_{letter}"] if bias else 0)
        return y.unflatten(-1, (count, -1)).transpose(-2, -3).repeat_interleave(4 // count, dim=-3)

    a, b, c = heads(tq, "q", 4), heads(tk, "k", 2), heads(tv, "v", 2)
    scores = a @ b.transpose(-1, -2) * options.get("scale", 3**-0.5)
    if "softcap" in options:
        scores = options["softcap"] * torch.tanh(scores / options["softcap"])
    mask = options.get("mask_mod", ag.causal if options.get("is_causal") else ag.full)
    scores = scores.masked_fill(~torch.tensor(mask.materialize(4)), -torch.inf)
    factors = torch.tensor([1.0, 0.0, 0.5, 2.0], dtype=torch.float64)
    out = (torch.softmax(scores, -1) @ c * factors[:, None, None]).transpose(-2, -3).flatten(-2) @ t["w_o"]
    out = out + (t["b_o"] if bias else 0)
    out.backward(torch.tensor(g))
    *inputs, grads = ag.multi_head_attention_backward(g, q, k, v, params, head_mask=factors.numpy(), **options)
    np.testing.assert_allclose(
        ag.multi_head_attention(q, k, v, params, head_mask=factors.numpy(), **options),
        out.detach().numpy(),
        rtol=1e-11,
        atol=ATOL,
    )
    for ours, theirs in zip(inputs, (tq, tk, tv), strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-10, atol=1e-12)
    for name in names:
        np.testing.assert_allclose(getattr(grads, name), t[name].grad.numpy(), rtol=1e-10, atol=1e-12, err_msg=name)
    assert (grads.b_q is None) != bias


def test_gradients_with_rope_and_dropout_equal_finite_differences():
    rng = np.random.default_rng(9)
    params = ag.init_multi_head(8, 2, rng=rng)
    x, g = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))

    def options():
        return {"rope": ag.apply_rope, "is_causal": True, "dropout_p": 0.3, "rng": np.random.default_rng(1)}

    *inputs, grads = ag.multi_head_attention_backward(g, x, x, x, params, **options())
    direction = rng.normal(size=(8, 8))
    step = 1e-6

    def loss(x_, w_q):
        moved = ag.MultiHeadParams(
            w_q, params.w_k, params.w_v, params.w_o, 2, None, params.b_q, params.b_k, params.b_v, params.b_o
        )
        return float((g * ag.multi_head_attention(x_, x_, x_, moved, **options())).sum())

    slope = (loss(x, params.w_q + step * direction) - loss(x, params.w_q - step * direction)) / (2 * step)
    assert slope == pytest.approx(float((grads.w_q * direction).sum()), rel=1e-7)
    along = rng.normal(size=x.shape)
    slope = (loss(x + step * along, params.w_q) - loss(x - step * along, params.w_q)) / (2 * step)
    assert slope == pytest.approx(float((sum(inputs) * along).sum()), rel=1e-7)


# ------------------------------------------------------------------------------------------ bad input

RNG = np.random.default_rng(0)
P = ag.init_multi_head(8, 4, num_kv_heads=2, rng=RNG)
L = ag.init_multi_head_latent(8, 2, d_c=4, d_nope=4, d_rope=2, d_cq=6, norm=True, rng=RNG)
X = np.ones((3, 8))


def multi(**changes):
    return ag.MultiHeadParams(
        **({n: getattr(P, n) for n in ("w_q", "w_k", "w_v", "w_o")} | {"num_heads": 4, "num_kv_heads": 2} | changes)
    )


def latent_params(**changes):
    names = ("w_dkv", "w_uk", "w_uv", "w_kr", "w_uq", "w_qr", "w_o", "num_heads", "w_dq", "norm_q", "norm_kv")
    return ag.LatentParams(**({n: getattr(L, n) for n in names} | changes))


def state(**changes):
    base = {"in_proj_weight": np.ones((24, 8)), "out_proj.weight": np.ones((8, 8))}
    return {k: v for k, v in (base | changes).items() if v is not None}


BAD = [
    (lambda: ag.split_heads(X, 3), ValueError, "num_heads is 3; wanted a divisor of the width of x, 8"),
    (lambda: ag.split_heads(np.ones(8), 2), ValueError, "x has shape (8,); wanted (..., n, h * d)"),
    (lambda: ag.split_heads(X, 0), ValueError, "num_heads is 0"),
    (lambda: ag.split_heads(X * 1j, 2), TypeError, "x has dtype complex128"),
    (lambda: ag.merge_heads(X), ValueError, "x has shape (3, 8); wanted (..., h, n, d)"),
    (lambda: multi(num_kv_heads=3), ValueError, "num_kv_heads is 3; wanted a divisor of num_heads, 4"),
    (lambda: multi(num_heads=2.0), TypeError, "num_heads is 2.0 of type float"),
    (lambda: multi(w_q=np.ones((8, 7))), ValueError, "w_q has shape (8, 7); wanted (width in, 4 heads"),
    (lambda: multi(w_k=np.ones((8, 8))), ValueError, "w_k has shape (8, 8); wanted 2 * 2 columns"),
    (lambda: multi(w_o=np.ones((7, 8))), ValueError, "w_o has shape (7, 8); wanted (4 * 2, d_out)"),
    (lambda: multi(b_v=np.ones(8)), ValueError, "b_v has shape (8,); wanted (4,), the columns of w_v"),
    (lambda: multi(w_v=P.w_v.astype("f4")), TypeError, "must share one dtype"),
    (lambda: multi(w_q=P.w_q * 1j), TypeError, "w_q has dtype complex128"),
    (lambda: ag.init_multi_head(8, 3, rng=RNG), ValueError, "num_heads is 3; wanted a divisor of d_model, 8"),
    (lambda: ag.init_multi_head(8, 4, num_kv_heads=3, rng=RNG), ValueError, "num_kv_heads is 3"),
    (lambda: ag.init_multi_head(8, 4, rng=0), TypeError, "rng is 0; wanted a numpy.random.Generator"),
    (
        lambda: ag.multi_head_attention(X, X, X, {"w_q": 1}),
        TypeError,
        "params is of type dict; wanted a MultiHeadParams",
    ),
    (
        lambda: ag.multi_head_attention(X[:, :5], X, X, P),
        ValueError,
        "query has width 5 (shape (3, 5)); wanted 8, the rows of w_q",
    ),
    (
        lambda: ag.multi_head_attention(X, X[:, :5], X, P),
        ValueError,
        "key has width 5 (shape (3, 5)); wanted 8, the rows of w_k",
    ),
    (lambda: ag.multi_head_attention(X, X, X[:2], P), ValueError, "value has length 2; wanted the length of key, 3"),
    (lambda: ag.multi_head_attention(X[0], X, X, P), ValueError, "query has shape (8,); wanted (..., length, width)"),
    (lambda: ag.multi_head_attention(X.astype("f4"), X, X, P), TypeError, "must share one dtype; got query float32"),
    (
        lambda: ag.multi_head_attention(X, X, X, P, head_mask=[1, 1]),
        ValueError,
        "head_mask has shape (2,); wanted one that broadcasts to (4,)",
    ),
    (lambda: ag.multi_head_attention(X, X, X, P, head_mask=["a"] * 4), TypeError, "head_mask has dtype <U1"),
    (lambda: ag.multi_head_attention(X, X, X, P, np.ones((2, 2), bool)), ValueError, "attn_mask has shape (2, 2)"),
    (lambda: ag.multi_head_attention(X, X, X, P, dropout_p=1.5), ValueError, "dropout_p is 1.5"),
    (
        lambda: ag.multi_head_attention_backward(X[:2], X, X, X, P),
        ValueError,
        "grad_out has shape (2, 8); wanted the shape of the output, (3, 8)",
    ),
    (
        lambda: ag.MultiHeadParams.from_torch_state_dict(state(bias_k=np.ones((1, 1, 8))), 2),
        ValueError,
        "state holds bias_k (add_bias_kv=True)",
    ),
    (
        lambda: ag.MultiHeadParams.from_torch_state_dict(state(in_proj_weight=None), 2),
        KeyError,
        "state has no q_proj_weight",
    ),
    (
        lambda: ag.MultiHeadParams.from_torch_state_dict({}, 2, prefix="a."),
        KeyError,
        "state has no a.q_proj_weight; it has nothing",
    ),
    (
        lambda: ag.MultiHeadParams.from_torch_state_dict(state(), 3),
        ValueError,
        "w_q has shape (8, 8); wanted (width in, 3 heads",
    ),
    (lambda: P.to_torch_state_dict(), ValueError, "do not fit torch.nn.MultiheadAttention"),
    (
        lambda: ag.MultiHeadParams(X[:2].repeat(4, 0), *[np.ones((8, 8))] * 3, 2, b_q=np.ones(8)).to_torch_state_dict(),
        ValueError,
        "some of b_q, b_k, b_v, b_o are None",
    ),
    (lambda: latent_params(w_uk=np.ones((5, 8))), ValueError, "w_uk has shape (5, 8); wanted (4, 8)"),
    (lambda: latent_params(w_qr=np.ones((6, 3))), ValueError, "w_qr has shape (6, 3); wanted a multiple of 2 heads"),
    (lambda: latent_params(w_dq=None), ValueError, "w_uq has shape (6, 8); wanted (8, 8)"),
    (lambda: latent_params(norm_kv=np.ones((4, 1))), ValueError, "norm_kv has shape (4, 1); wanted 1 dimension"),
    (lambda: P.join(np.ones((2, 3, 4))), ValueError, "heads has shape (2, 3, 4); wanted (..., 4, n, 2)"),
    (lambda: latent_params(num_heads=0), ValueError, "num_heads is 0"),
    (lambda: ag.init_multi_head_latent(8, 2, d_c=0, d_nope=4, d_rope=2, rng=RNG), ValueError, "d_c is 0"),
    (
        lambda: ag.multi_head_latent_attention(X, P),
        TypeError,
        "params is of type MultiHeadParams; wanted a LatentParams",
    ),
    (lambda: ag.multi_head_latent_attention(X[:, :4], L), ValueError, "x has width 4 (shape (3, 4)); wanted 8"),
    (lambda: ag.multi_head_latent_attention(X.astype("f4"), L), TypeError, "must share one dtype"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[row[2][:40] for row in BAD])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_inputs_are_not_modified():
    rng = np.random.default_rng(10)
    params = ag.init_multi_head(8, 2, rng=rng)
    x = rng.normal(size=(4, 8))
    before = [x.copy(), params.w_q.copy(), params.b_o.copy()]
    ag.multi_head_attention(x, x, x, params, is_causal=True, rope=ag.apply_rope, head_mask=[1, 0])
    ag.multi_head_attention_backward(np.ones((4, 8)), x, x, x, params, is_causal=True, rope=ag.apply_rope)
    for was, now in zip(before, (x, params.w_q, params.b_o), strict=True):
        np.testing.assert_array_equal(was, now)


def test_zero_length_sequences():
    out, weights = ag.multi_head_attention(X[:0], X, X, P, return_weights=True)
    assert out.shape == (0, 8)
    assert weights.shape == (4, 0, 3)
    nothing = ag.multi_head_attention(X, X[:0], X[:0], P)
    np.testing.assert_array_equal(nothing, np.broadcast_to(P.b_o, (3, 8)))  # no key: each head gives 0
