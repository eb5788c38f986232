"""core.py against PyTorch, ONNX's published cases, autograd and finite differences, and by its properties."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx_cases import Case, cases
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attn_guide as ag
from attn_guide import core

torch_sdpa = torch.nn.functional.scaled_dot_product_attention
T = torch.tensor

F64 = {"rtol": 1e-12, "atol": 1e-13}
F32 = {"rtol": 1e-5, "atol": 1e-6}


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def qkv(lead=(2, 4), n=5, m=7, d_k=8, d_v=6, h_kv=None, dtype=np.float64, seed=0):
    kv = lead if h_kv is None else (*lead[:-1], h_kv)
    return (
        normal(*lead, n, d_k, seed=seed, dtype=dtype),
        normal(*kv, m, d_k, seed=seed + 1, dtype=dtype),
        normal(*kv, m, d_v, seed=seed + 2, dtype=dtype),
    )


def boolean(*shape, seed=3, p=0.6):
    return np.random.default_rng([seed, *shape]).random(shape) < p


def lower(n, m):
    return np.tril(np.ones((n, m), bool))


# ------------------------------------------------------------------------------------------------ softmax


@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, F64), (np.float32, F32)])
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_softmax_is_torchs(dtype, tol, axis, temperature):
    x = normal(3, 4, 5, dtype=dtype) * 5
    got = ag.softmax(x, axis, temperature=temperature)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, torch.softmax(T(x) / temperature, axis).numpy(), **tol)


def test_softmax_against_higher_precision():
    x = normal(50, 40) * 30
    wide = x.astype(np.longdouble)
    e = np.exp(wide - wide.max(-1, keepdims=True))
    np.testing.assert_allclose(ag.softmax(x), (e / e.sum(-1, keepdims=True)).astype(float), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_accumulated_in_float32(dtype):
    # 4096 equal scores: a float16 sum of exponentials stops at 2048, so the weights would be twice too large.
    w = ag.softmax(np.zeros(4096, dtype))
    assert w.dtype == dtype
    assert float(w[0]) == 1 / 4096
    x = normal(4, 9).astype(dtype)
    wide = ag.softmax(x.astype(np.float32))
    np.testing.assert_array_equal(ag.softmax(x).astype(np.float32), wide.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(
    ("x", "want"),
    [
        ([1e4, 0.0], [1.0, 0.0]),
        ([-1e4, -1e4], [0.5, 0.5]),
        ([1e308, -1e308], [1.0, 0.0]),
        ([-np.inf, 3.0], [0.0, 1.0]),
        ([-np.inf, -np.inf], [0.0, 0.0]),
        ([7.0], [1.0]),
        ([], []),
    ],
)
def test_softmax_at_the_extremes_without_a_warning(x, want):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(ag.softmax(x), want)


def test_softmax_does_not_hide_nan():
    assert np.isnan(ag.softmax([[np.nan, 1.0], [0.0, 0.0]])[0]).all()
    np.testing.assert_array_equal(ag.softmax([[np.nan, 1.0], [0.0, 0.0]])[1], [0.5, 0.5])


def test_softmax_where_is_softmax_over_the_rest():
    x, where = normal(6, 5), boolean(6, 5)
    where[2] = False
    got = ag.softmax(x, where=where)
    for row, keep, w in zip(x, where, got, strict=True):
        assert (w[~keep] == 0).all()
        np.testing.assert_allclose(w[keep], torch.softmax(T(row[keep]), -1).numpy(), **F64)


finite = st.floats(-1e4, 1e4, allow_nan=False)
rows_of_scores = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=finite)


@settings(deadline=None)
@given(rows_of_scores, st.floats(-1e3, 1e3), st.floats(0.05, 20))
def test_softmax_properties(x, shift, temperature):
    w = ag.softmax(x, temperature=temperature)
    assert np.isfinite(w).all()
    assert (w >= 0).all()
    np.testing.assert_allclose(w.sum(-1), 1.0, rtol=1e-12)
    # adding a number to all scores changes nothing beyond the rounding of the scores themselves
    np.testing.assert_allclose(ag.softmax(x + shift, temperature=temperature), w, atol=1e-11 / temperature)
    order = np.argsort(x, axis=-1)
    assert (np.diff(np.take_along_axis(w, order, -1)) >= 0).all()
    np.testing.assert_allclose(w, ag.softmax(x / temperature), atol=1e-10)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(2, 8), elements=st.floats(-20, 20)),
    st.floats(0.05, 5),
    st.floats(1.01, 4),
)
def test_entropy_grows_with_temperature(x, cold, factor):
    low, high = (ag.attention_entropy(ag.softmax(x, temperature=t)) for t in (cold, cold * factor))
    assert high >= low - 1e-12
    assert high <= np.log(len(x)) + 1e-12


def test_temperature_tends_to_argmax_and_to_the_mean():
    x = np.array([0.3, 1.0, -0.5, 0.9])
    np.testing.assert_allclose(ag.softmax(x, temperature=1e-3), [0, 1, 0, 0], atol=1e-30)
    np.testing.assert_allclose(ag.softmax(x, temperature=1e9), [0.25] * 4, rtol=1e-8)


@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, F64), (np.float32, F32)])
@pytest.mark.parametrize("axis", [-1, 0])
def test_log_sum_exp_is_torchs(dtype, tol, axis):
    x = normal(4, 5, dtype=dtype) * 50
    x[:, 2] = x[1] = -np.inf
    got = ag.log_sum_exp(x, axis)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, torch.logsumexp(T(x), axis).numpy(), **tol)
    assert np.isneginf(ag.log_sum_exp(np.zeros((2, 0)))).all()


def test_log_sum_exp_where():
    x, where = normal(6, 5), boolean(6, 5)
    want = torch.logsumexp(T(np.where(where, x, -np.inf)), -1).numpy()
    np.testing.assert_allclose(ag.log_sum_exp(x, where=where), want, **F64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_softmax_derivatives_are_autograds(temperature):
    x, g = normal(3, 5), normal(3, 5, seed=1)
    w = ag.softmax(x, temperature=temperature)
    t = T(x, requires_grad=True)
    out = torch.softmax(t / temperature, -1)
    out.backward(T(g))
    got = ag.softmax_backward(g, w, temperature=temperature)
    np.testing.assert_allclose(got, t.grad.numpy(), **F64)
    want = torch.autograd.functional.jacobian(lambda z: torch.softmax(z / temperature, -1), T(x))
    jacobian = ag.softmax_jacobian(w, temperature=temperature)
    for i in range(3):
        np.testing.assert_allclose(jacobian[i], want[i, :, i].numpy(), **F64)
    np.testing.assert_allclose(np.einsum("nij,ni->nj", jacobian, g), got, **F64)
    swapped = ag.softmax_backward(g.T, w.T, axis=0, temperature=temperature)
    np.testing.assert_array_equal(swapped.T, got)


def test_softmax_jacobian_by_finite_differences():
    x, step = normal(6), 1e-6
    numeric = [(ag.softmax(x + step * e) - ag.softmax(x - step * e)) / (2 * step) for e in np.eye(6)]
    np.testing.assert_allclose(ag.softmax_jacobian(ag.softmax(x)), np.stack(numeric, axis=1), atol=1e-9)


def test_entropy_is_torchs():
    w = ag.softmax(normal(4, 7) * 3)
    want = torch.distributions.Categorical(probs=T(w)).entropy().numpy()
    np.testing.assert_allclose(ag.attention_entropy(w), want, rtol=1e-12)
    np.testing.assert_allclose(ag.attention_entropy(w, base=2), want / np.log(2), rtol=1e-12)
    np.testing.assert_allclose(ag.attention_entropy(w.T, 0, base=7), want / np.log(7), rtol=1e-12)
    hard = ag.attention_entropy([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(hard, [0.0, 0.0, np.log(2)])
    assert not np.signbit(hard).any()


# ------------------------------------------------------------------------------------- attention: equality

MASKS = {
    "none": lambda lead, n, m: None,
    "rows": lambda lead, n, m: boolean(n, m),
    "heads": lambda lead, n, m: boolean(*lead, n, m),
    "keys": lambda lead, n, m: boolean(*lead[:-1], 1, 1, m),
    "bias": lambda lead, n, m: normal(*lead, n, m, seed=9),
    "bias-per-head": lambda lead, n, m: normal(lead[-1], 1, m, seed=9),
    "bias-inf": lambda lead, n, m: np.where(boolean(n, m), normal(n, m, seed=9), -np.inf),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("h_kv", [None, 4, 2, 1])
@pytest.mark.parametrize(("n", "m"), [(5, 7), (7, 5), (1, 6), (6, 1)])
def test_attention_is_torchs(mask, is_causal, h_kv, n, m):
    lead = (2, 4)
    q, k, v = qkv(lead, n, m, h_kv=h_kv)
    attn_mask = MASKS[mask](lead, n, m)
    theirs = attn_mask
    if is_causal and attn_mask is None:
        theirs = lower(n, m)
    elif is_causal:
        theirs = attn_mask & lower(n, m) if attn_mask.dtype == bool else np.where(lower(n, m), attn_mask, -np.inf)
    want = torch_sdpa(T(q), T(k), T(v), None if theirs is None else T(theirs), enable_gqa=h_kv is not None).numpy()
    options = {"attn_mask": attn_mask, "is_causal": is_causal, "enable_gqa": h_kv is not None}
    got, w = ag.scaled_dot_product_attention(q, k, v, **options, return_weights=True)
    np.testing.assert_allclose(got, want, **F64)
    sums = w.sum(-1)
    np.testing.assert_allclose(sums[sums > 0], 1.0, rtol=1e-12)
    np.testing.assert_allclose(w @ np.repeat(v, 4 // v.shape[1], axis=1), got, **F64)
    np.testing.assert_allclose(ag.softmax(ag.attention_scores(q, k, **options)), w, **F64)


@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, F64), (np.float32, F32)])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3, -0.2])
def test_is_causal_and_scale_are_torchs(dtype, tol, is_causal, scale):
    q, k, v = qkv(dtype=dtype)
    got = ag.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, torch_sdpa(T(q), T(k), T(v), is_causal=is_causal, scale=scale).numpy(), **tol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_no_more_than_torch(dtype):
    exact = [T(x).to(dtype) for x in qkv((2, 4), 65, 130, 64, 64)]
    as_numpy = np.float16 if dtype == torch.float16 else ml_dtypes.bfloat16
    ours = [x.double().numpy().astype(as_numpy) for x in exact]
    want = torch_sdpa(*(x.double() for x in exact)).numpy()
    got = ag.scaled_dot_product_attention(*ours)
    assert got.dtype == as_numpy
    error = np.abs(got.astype(float) - want).max()
    theirs = np.abs(torch_sdpa(*exact).double().numpy() - want).max()
    rounding = np.abs(want.astype(as_numpy).astype(float) - want).max()
    assert error <= max(theirs, 1.05 * rounding)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
def test_any_leading_dimensions(lead):
    q, k, v = qkv(lead)
    want = torch_sdpa(T(q), T(k), T(v)).numpy()
    got, w = ag.scaled_dot_product_attention(q, k, v, return_weights=True)
    assert got.shape == (*lead, 5, 6)
    assert w.shape == (*lead, 5, 7)
    np.testing.assert_allclose(got, want, **F64)


def test_leading_dimensions_broadcast():
    q, k, v = normal(2, 1, 3, 5, 8), normal(4, 1, 7, 8), normal(7, 6)
    got = ag.scaled_dot_product_attention(q, k, v)
    full = [np.ascontiguousarray(np.broadcast_to(x, (2, 4, 3, *x.shape[-2:]))) for x in (q, k, v)]
    np.testing.assert_allclose(got, torch_sdpa(*map(T, full)).numpy(), **F64)
    assert got.shape == (2, 4, 3, 5, 6)


def manual(q, k, v, *, softcap=None, bias=None, allowed=None, score=None, keep=None, scale=None):
    """The published formula in torch, one line a step, for what torch's function has no argument for."""
    k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3) for x in (k, v))
    s = torch.einsum("...nd,...md->...nm", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        s = softcap * torch.tanh(s / softcap)
    if score is not None:
        s = score(s)
    if bias is not None:
        s = s + bias
    if allowed is not None:
        s = s.masked_fill(~allowed, -torch.inf)
    w = torch.nan_to_num(torch.softmax(s, -1))
    if keep is not None:
        w = w * keep
    return torch.einsum("...nm,...mv->...nv", w, v)


@pytest.mark.parametrize("softcap", [0.5, 2.0, 50.0])
def test_softcap_comes_before_bias_and_mask(softcap):
    q, k, v = qkv(h_kv=2)
    q = 4 * q
    bias, allowed = normal(4, 5, 7, seed=5), boolean(5, 7)
    options = {"softcap": softcap, "enable_gqa": True}
    got = ag.scaled_dot_product_attention(q, k, v, bias, mask_mod=lambda b, h, i, j: allowed[i, j], **options)
    want = manual(T(q), T(k), T(v), softcap=softcap, bias=T(bias), allowed=T(allowed)).numpy()
    np.testing.assert_allclose(got, want, **F64)
    scores = ag.attention_scores(q, k, **options)
    assert np.abs(scores).max() <= softcap


# Fractions are powers of two: torch computes 0.1 * (integer tensor) in float32.
MODS = {
    "causal": (lambda b, h, q, kv: q >= kv, None),
    "by batch and head": (lambda b, h, q, kv: (kv + b + 2 * h + q) % 3 != 0, None),
    "alibi": (None, lambda s, b, h, q, kv: s - 0.5 ** (h + 1) * abs(q - kv)),
    "product": (lambda b, h, q, kv: q >= kv - 1, lambda s, b, h, q, kv: s * (1 + 0.125 * h) + 0.0625 * b * (q + kv)),
}


@pytest.mark.parametrize("mods", MODS)
@pytest.mark.parametrize("h_kv", [4, 2])
def test_mods_are_flex_attentions(mods, h_kv):
    """The same predicate, untouched, in FlexAttention."""
    mask_mod, score_mod = MODS[mods]
    q, k, v = qkv(h_kv=h_kv, d_v=8)
    block_mask = None if mask_mod is None else create_block_mask(mask_mod, 2, 4, 5, 7, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it is slow when it is not compiled
        want = flex_attention(T(q), T(k), T(v), score_mod, block_mask, enable_gqa=True).numpy()
    got = ag.scaled_dot_product_attention(q, k, v, mask_mod=mask_mod, score_mod=score_mod, enable_gqa=True)
    np.testing.assert_allclose(got, want, **F64)


def test_mods_see_the_query_head_and_the_flat_batch_index():
    q, k, _ = qkv((2, 3, 4), h_kv=2)
    seen = ag.attention_scores(
        q, k, enable_gqa=True, score_mod=lambda s, b, h, i, j: 1000 * b + 100 * h + 10 * i + j + 0 * s
    )
    b, h, i, j = np.ix_(range(6), range(4), range(5), range(7))
    np.testing.assert_array_equal(seen, (1000 * b + 100 * h + 10 * i + j).reshape(2, 3, 4, 5, 7))


def test_masks_compose():
    q, k, v = qkv()
    attn_mask = boolean(5, 7)
    together = ag.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=True, mask_mod=lambda b, h, i, j: j != 1)
    np.testing.assert_array_equal(
        together, ag.scaled_dot_product_attention(q, k, v, attn_mask & lower(5, 7) & (np.arange(7) != 1))
    )


@pytest.mark.parametrize("case", cases("attention"), ids=lambda case: case.name.removeprefix("test_attention_"))
def test_attention_is_onnxs(case: Case):
    """Every case that the standard publishes, caches, padding and windows written as predicates."""
    a, x = case.attributes, case.inputs
    q, k, v = x["Q"], x["K"], x["V"]
    if q.ndim == 3:
        heads = a["q_num_heads"], a["kv_num_heads"], a["kv_num_heads"]
        q, k, v = (ag.split_heads(y, h) for y, h in zip((q, k, v), heads, strict=True))
    past = 0
    if "past_key" in x:
        past = x["past_key"].shape[2]
        k, v = np.concatenate([x["past_key"], k], 2), np.concatenate([x["past_value"], v], 2)
    n, m = q.shape[2], k.shape[2]
    attn_mask = x.get("attn_mask")
    if attn_mask is not None and attn_mask.shape[-1] < m:  # a short mask hides the keys it does not reach
        pad = [(0, 0)] * (attn_mask.ndim - 1) + [(0, m - attn_mask.shape[-1])]
        attn_mask = np.pad(attn_mask, pad, constant_values=False if attn_mask.dtype == bool else -np.inf)
    length = x.get("nonpad_kv_seqlen")
    offset = past if length is None or "past_key" in x else length - n
    left, right = a.get("left_window_size", -1), a.get("right_window_size", -1)

    def visible(b, h, i, j):
        at = i + (offset if np.ndim(offset) == 0 else offset[b])
        ok = (i >= 0) & (j >= 0)
        if a.get("is_causal"):
            ok = ok & (j <= at)
        if length is not None:
            ok = ok & (j < length[b])
        if left >= 0:
            ok = ok & (at - j <= left)
        return ok & (j - at <= right) if right >= 0 else ok

    options = {"scale": a.get("scale"), "softcap": a.get("softcap") or None, "enable_gqa": True}
    got, w = ag.scaled_dot_product_attention(q, k, v, attn_mask, mask_mod=visible, **options, return_weights=True)
    if x["Q"].ndim == 3:
        got = ag.merge_heads(got)
    # ONNX rounds the scores and weights of half precision on the way, float32 only at the end
    coarse = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5}[q.dtype.name]
    close = partial(np.testing.assert_allclose, rtol=coarse, atol=coarse)
    assert got.dtype == case.outputs["Y"].dtype
    close(got.astype(float), case.outputs["Y"].astype(float))
    if "qk_matmul_output" in case.outputs:
        mode = a.get("qk_matmul_output_mode", 0)
        capped = {**options, "softcap": options["softcap"] if mode else None}
        ours = {
            0: lambda: ag.attention_scores(q, k, **capped),
            1: lambda: ag.attention_scores(q, k, **capped),
            2: lambda: ag.attention_scores(q, k, attn_mask, mask_mod=visible, **capped),
            3: lambda: w,
        }[mode]()
        close(ours.astype(float), case.outputs["qk_matmul_output"].astype(float))


def test_onnx_published_enough_cases():
    assert len(cases("attention")) >= 60, f"onnx {onnx.__version__} has fewer cases than these tests were written for"


# ---------------------------------------------------------------------------- attention: the forbidden row


@pytest.mark.parametrize("kind", ["bool", "float", "mask_mod", "score_mod"])
def test_a_fully_masked_row_gives_zeros(kind):
    q, k, v = qkv()
    allowed = boolean(5, 7)
    allowed[2] = False
    allowed[1] = True
    options = {
        "bool": {"attn_mask": allowed},
        "float": {"attn_mask": np.where(allowed, 0.0, -np.inf)},
        "mask_mod": {"mask_mod": lambda b, h, i, j: allowed[i, j]},
        "score_mod": {"score_mod": lambda s, b, h, i, j: np.where(allowed[i, j], s, -np.inf)},
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, w = ag.scaled_dot_product_attention(q, k, v, **options, return_weights=True)
        if kind == "score_mod":
            options["score_mod_grad"] = lambda s, b, h, i, j: 1.0
        dq, dk, dv = ag.scaled_dot_product_attention_backward(normal(*out.shape), q, k, v, **options)
    assert (out[..., 2, :] == 0).all()
    assert (w[..., 2, :] == 0).all()
    assert (dq[..., 2, :] == 0).all()
    assert (out[..., 1, :] != 0).all()
    for x in (out, w, dq, dk, dv):
        assert np.isfinite(x).all()
    np.testing.assert_allclose(out, torch_sdpa(T(q), T(k), T(v), T(allowed)).numpy(), **F64)


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_zero_lengths(n, m, is_causal):
    q, k, v = qkv((2, 4), n, m, h_kv=2)
    out, w = ag.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=True, return_weights=True)
    assert out.shape == (2, 4, n, 6)
    assert w.shape == (2, 4, n, m)
    assert (out == 0).all()
    grads = ag.scaled_dot_product_attention_backward(out, q, k, v, is_causal=is_causal, enable_gqa=True)
    assert [g.shape for g in grads] == [q.shape, k.shape, v.shape]
    assert ag.scaled_dot_product_attention(*qkv((0, 4))).shape == (0, 4, 5, 6)


@pytest.mark.parametrize("size", [1e4, 1e5])
def test_extreme_logits(size):
    q, k, v = qkv(dtype=np.float32)
    q[...] = np.sign(q) * size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, w = ag.scaled_dot_product_attention(q, k, v, return_weights=True)
    np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(out, torch_sdpa(T(q), T(k), T(v)).numpy(), **F32)


# ------------------------------------------------------------------------------------ attention: gradients

BACKWARD = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.7},
    "bool": {"attn_mask": boolean(5, 7)},
    "bias": {"attn_mask": normal(4, 5, 7, seed=8)},
    "keys": {"attn_mask": boolean(2, 1, 1, 7)},
    "softcap": {"softcap": 1.5},
    "all": {"attn_mask": normal(4, 1, 7, seed=8), "is_causal": True, "softcap": 1.5, "scale": 1.1},
}


@pytest.mark.parametrize("case", BACKWARD)
@pytest.mark.parametrize("h_kv", [None, 2, 1])
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, F64), (np.float32, {"rtol": 1e-4, "atol": 1e-5})])
def test_backward_is_autograds(case, h_kv, dtype, tol):
    q, k, v = qkv(h_kv=h_kv, dtype=dtype)
    options = BACKWARD[case]
    grad_out = normal(2, 4, 5, 6, seed=4, dtype=dtype)
    ts = [T(x, requires_grad=True) for x in (q, k, v)]
    mask = options.get("attn_mask")
    allowed = T(mask) if mask is not None and mask.dtype == bool else torch.ones(5, 7, dtype=bool)
    if options.get("is_causal"):
        allowed = allowed & T(lower(5, 7))
    bias = None if mask is None or mask.dtype == bool else T(mask.astype(dtype))
    rest = {name: options.get(name) for name in ("softcap", "scale")}
    manual(*ts, bias=bias, allowed=allowed, **rest).backward(T(grad_out))
    grads = ag.scaled_dot_product_attention_backward(grad_out, q, k, v, enable_gqa=h_kv is not None, **options)
    for got, t in zip(grads, ts, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, t.grad.numpy(), **tol)


def test_backward_is_torch_sdpas():
    q, k, v = qkv(h_kv=2)
    mask, grad_out = boolean(2, 1, 5, 7), normal(2, 4, 5, 6, seed=4)
    ts = [T(x, requires_grad=True) for x in (q, k, v)]
    torch_sdpa(*ts, T(mask), enable_gqa=True).backward(T(grad_out))
    grads = ag.scaled_dot_product_attention_backward(grad_out, q, k, v, mask, enable_gqa=True)
    for got, t in zip(grads, ts, strict=True):
        np.testing.assert_allclose(got, t.grad.numpy(), **F64)


def test_backward_through_broadcast_inputs():
    q, k, v = normal(2, 1, 5, 8), normal(4, 7, 8), normal(1, 1, 7, 6)
    grad_out = normal(2, 4, 5, 6)
    ts = [T(x, requires_grad=True) for x in (q, k, v)]
    w = torch.softmax(ts[0] @ ts[1].mT * 8**-0.5, -1)
    (w @ ts[2]).backward(T(grad_out))
    for got, t in zip(ag.scaled_dot_product_attention_backward(grad_out, q, k, v), ts, strict=True):
        assert got.shape == tuple(t.shape)
        np.testing.assert_allclose(got, t.grad.numpy(), **F64)


def test_backward_through_score_mod_dropout_and_softcap():
    q, k, v = qkv(h_kv=2)
    grad_out = normal(2, 4, 5, 6)

    def score_mod(s, b, h, i, j):
        return s * s * (1 + 0.125 * h) - 0.125 * b * abs(i - j)

    options = {"enable_gqa": True, "softcap": 3.0, "dropout_p": 0.4, "score_mod": score_mod}
    out, w = ag.scaled_dot_product_attention(q, k, v, **options, rng=np.random.default_rng(5), return_weights=True)
    grads = ag.scaled_dot_product_attention_backward(
        grad_out,
        q,
        k,
        v,
        **options,
        score_mod_grad=lambda s, b, h, i, j: 2 * s * (1 + 0.125 * h),
        rng=np.random.default_rng(5),
    )
    keep = T((w > 0) / 0.6)
    b, h, i, j = (T(x) for x in np.ix_(range(2), range(4), range(5), range(7)))
    ts = [T(x, requires_grad=True) for x in (q, k, v)]
    want = manual(*ts, softcap=3.0, score=lambda s: score_mod(s, b, h, i, j), keep=keep)
    want.backward(T(grad_out))
    np.testing.assert_allclose(out, want.detach().numpy(), **F64)
    for got, t in zip(grads, ts, strict=True):
        np.testing.assert_allclose(got, t.grad.numpy(), **F64)


@pytest.mark.parametrize("case", ["bool", "all"])
def test_backward_by_finite_differences(case):
    options = BACKWARD[case]
    inputs = list(qkv(h_kv=2))
    grad_out, step = normal(2, 4, 5, 6), 1e-6
    grads = ag.scaled_dot_product_attention_backward(grad_out, *inputs, enable_gqa=True, **options)
    rng = np.random.default_rng(0)
    for which, grad in enumerate(grads):
        direction = rng.standard_normal(grad.shape)
        up, down = (
            (
                ag.scaled_dot_product_attention(
                    *(x + sign * step * direction if i == which else x for i, x in enumerate(inputs)),
                    enable_gqa=True,
                    **options,
                )
                * grad_out
            ).sum()
            for sign in (1, -1)
        )
        np.testing.assert_allclose((grad * direction).sum(), (up - down) / (2 * step), rtol=1e-7)


# ----------------------------------------------------------------------------------- attention: properties


@st.composite
def problems(draw, dtypes=(np.float32, np.float64)):
    """Random shapes, dtypes and masks: n != m, one key, no key, forbidden rows."""
    dtype = draw(st.sampled_from(dtypes))
    h_kv, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    n, m = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    lead = draw(st.sampled_from([(), (1,), (2,)]))
    d_k, d_v = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    seed, size = draw(st.integers(0, 10**6)), draw(st.sampled_from([1.0, 30.0, 1e4]))
    if dtype not in (np.float32, np.float64):
        size = min(size, 1e3)  # float16 ends at 65504
    rng = np.random.default_rng(seed)

    def array(*shape):
        return rng.standard_normal(shape).astype(dtype)

    q = array(*lead, h_kv * group, n, d_k) * dtype(size)
    mask = rng.random((*lead, h_kv * group, n, m)) < draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    return q, array(*lead, h_kv, m, d_k), array(*lead, h_kv, m, d_v), mask, rng


@settings(deadline=None)
@given(problems(dtypes=(np.float16, ml_dtypes.bfloat16, np.float32, np.float64)), st.booleans())
def test_rows_sum_to_one_or_zero_and_nothing_is_nan(problem, is_causal):
    q, k, v, mask, _ = problem
    copies = [x.copy() for x in (q, k, v, mask)]
    for x in (q, k, v, mask):
        x.setflags(write=False)
    options = {"attn_mask": mask, "is_causal": is_causal, "enable_gqa": True}
    out, w = ag.scaled_dot_product_attention(q, k, v, **options, return_weights=True)
    n, m = w.shape[-2:]
    visible = mask & lower(n, m) if is_causal else mask
    assert out.dtype == q.dtype
    assert np.isfinite(out).all()
    assert (w[~visible] == 0).all()
    rounding = float(ml_dtypes.finfo(q.dtype).eps)  # of each weight, at most
    np.testing.assert_allclose(w.astype(float).sum(-1), visible.any(-1), rtol=8 * rounding)
    for x, copy in zip((q, k, v, mask), copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@settings(deadline=None)
@given(problems(), st.booleans())
def test_nothing_leaks_through_a_mask(problem, is_causal):
    """Changing a hidden key or value moves no output, and no gradient flows to it."""
    q, k, v, mask, rng = problem
    n, m = mask.shape[-2:]
    if n == 0 or m == 0:
        return
    hidden = int(rng.integers(m))
    mask = mask.copy()
    if is_causal:  # hidden from every query before it
        rows = slice(0, hidden)
    else:
        mask[..., hidden] = False
        rows = slice(None)
    options = {"attn_mask": mask, "is_causal": is_causal, "enable_gqa": True}
    before = ag.scaled_dot_product_attention(q, k, v, **options)
    k2, v2 = k.copy(), v.copy()
    k2[..., hidden, :] = rng.standard_normal(k[..., hidden, :].shape) * 100
    v2[..., hidden, :] = rng.standard_normal(v[..., hidden, :].shape) * 1e6
    after = ag.scaled_dot_product_attention(q, k2, v2, **options)
    np.testing.assert_array_equal(before[..., rows, :], after[..., rows, :])
    grad_out = np.zeros_like(before)
    grad_out[..., rows, :] = 1.0
    _, dk, dv = ag.scaled_dot_product_attention_backward(grad_out, q, k, v, **options)
    assert (dk[..., hidden, :] == 0).all()
    assert (dv[..., hidden, :] == 0).all()


@pytest.mark.parametrize("kind", ["bool", "float", "causal"])
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_a_hidden_key_may_hold_anything(kind, junk):
    q, k, v = qkv(n=3)
    allowed = np.arange(7) < 4
    options = {
        "bool": {"attn_mask": allowed},
        "float": {"attn_mask": np.where(allowed, 0.0, -np.inf)},
        "causal": {"is_causal": True},
    }[kind]
    want = ag.scaled_dot_product_attention(q, k, v, **options)
    k[..., 4:, :] = junk
    with np.errstate(invalid="ignore"):  # inf - inf inside the product
        np.testing.assert_array_equal(ag.scaled_dot_product_attention(q, k, v, **options), want)


@settings(deadline=None)
@given(problems())
def test_permutations(problem):
    """Keys are a set: their order does not matter. Queries are answered one by one: the order stays."""
    q, k, v, mask, rng = problem
    n, m = mask.shape[-2:]
    rows, columns = rng.permutation(n), rng.permutation(m)
    tol = {"rtol": 1e-4, "atol": 1e-5} if q.dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-11}
    want = ag.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    got = ag.scaled_dot_product_attention(
        q[..., rows, :],
        k[..., columns, :],
        v[..., columns, :],
        mask[..., rows, :][..., columns],
        enable_gqa=True,
    )
    np.testing.assert_allclose(got, want[..., rows, :], **tol)


@settings(deadline=None)
@given(problems())
def test_output_stays_within_the_visible_values(problem):
    q, k, v, mask, _ = problem
    out = ag.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    if out.size == 0 or mask.shape[-1] == 0:
        assert (out == 0).all()
        return
    wide = np.repeat(v, q.shape[-3] // v.shape[-3], axis=-3)[..., None, :, :]  # (..., h, 1, m, d_v)
    visible = mask[..., None]  # (..., h, n, m, 1)
    high, low = np.where(visible, wide, -np.inf).max(-2), np.where(visible, wide, np.inf).min(-2)
    seen = mask.any(-1)
    assert (out <= high + 1e-5)[seen].all()
    assert (out >= low - 1e-5)[seen].all()


@settings(deadline=None)
@given(problems(), st.floats(-50, 50))
def test_adding_a_constant_to_the_scores_of_a_row_changes_nothing(problem, shift):
    q, k, v, mask, _ = problem
    q = (q / max(1.0, np.abs(q).max(initial=0.0))).astype(np.float64)
    k, v = k.astype(np.float64), v.astype(np.float64)
    bias = np.where(mask, 0.0, -np.inf)
    plain = ag.scaled_dot_product_attention(q, k, v, bias, enable_gqa=True)
    np.testing.assert_allclose(
        ag.scaled_dot_product_attention(q, k, v, bias + shift, enable_gqa=True), plain, rtol=1e-10, atol=1e-11
    )


# ------------------------------------------------------------------------- attention: how the work is cut


@pytest.mark.parametrize("block", [1, 40, 300, 10**9])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("return_weights", [False, True])
def test_blocks_and_threads_change_nothing(monkeypatch, block, is_causal, return_weights):
    q, k, v = qkv((3, 2, 6), 37, 41, h_kv=3)
    mask = boolean(3, 2, 1, 37, 41)
    options = {
        "attn_mask": mask,
        "is_causal": is_causal,
        "enable_gqa": True,
        "score_mod": lambda s, b, h, i, j: s + 0.1 * b + 0.2 * h * (i - j),
        "mask_mod": lambda b, h, i, j: (h + b + i + j) % 7 != 0,
        "softcap": 2.0,
        "dropout_p": 0.2,
        "return_weights": return_weights,
    }
    monkeypatch.setattr(core, "_BLOCK", 10**9)
    want = ag.scaled_dot_product_attention(q, k, v, **options, rng=np.random.default_rng(1))
    monkeypatch.setattr(core, "_BLOCK", block)
    got = ag.scaled_dot_product_attention(q, k, v, **options, rng=np.random.default_rng(1))
    for a, b in zip(got, want, strict=True) if return_weights else [(got, want)]:
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(4, 100, 100), (2, 2, 1, 1000), (1000, 3, 3), (0, 5, 5), (3, 0, 5), (3, 5, 0)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_blocks_cover_every_score_once(monkeypatch, shape, is_causal):
    monkeypatch.setattr(core, "_BLOCK", 500)
    *lead, n, m = shape
    p = core._prepare(np.zeros((*lead, n, 2)), np.zeros((*lead, m, 2)), np.zeros((*lead, m, 2)), *[None] * 7)._replace(
        is_causal=is_causal
    )
    count = np.zeros(shape, int)
    for at, rows, keys in core._blocks(p):
        count[at][..., rows, keys] += 1
        assert count[at][..., rows, keys].size <= max(500, 16 * m)
    visible = lower(n, m) if is_causal else np.ones((n, m), bool)
    assert (count[..., visible] == 1).all()
    assert count.max(initial=0) <= 1


def test_memory_without_weights_does_not_grow_with_the_scores():
    q, k, v = qkv((8,), 2048, 2048, 16, 16, dtype=np.float32)
    ag.scaled_dot_product_attention(q, k, v)  # starts the threads
    peak = ag.peak_memory(lambda: ag.scaled_dot_product_attention(q, k, v))
    assert peak < 2048 * 2048 * 4  # one head's scores; all eight would be 128 MiB
    assert peak > q.nbytes  # the output was counted


def test_grouped_heads_are_not_repeated_in_memory():
    q, k, v = normal(32, 1, 64), normal(1, 20_000, 64), normal(1, 20_000, 64)
    peak = ag.peak_memory(lambda: ag.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    assert peak < 32 * k.nbytes / 4


def test_strided_read_only_and_listed_inputs():
    q, k, v = qkv()
    want = ag.scaled_dot_product_attention(q, k, v)
    odd = [np.asfortranarray(x) for x in (q, k, v)]
    for x in odd:
        x.setflags(write=False)
    np.testing.assert_allclose(ag.scaled_dot_product_attention(*odd), want, **F64)
    np.testing.assert_allclose(ag.scaled_dot_product_attention(*(x.tolist() for x in (q, k, v))), want, **F64)
    whole = ag.scaled_dot_product_attention(np.eye(2, dtype=int), np.eye(2, dtype=int), np.eye(2, dtype=int))
    assert whole.dtype == np.float64


# ------------------------------------------------------------------------------------------------ dropout


def test_dropout_keeps_the_expectation_and_breaks_row_sums():
    p, samples = 0.1, 4000
    w = ag.softmax(normal(50))
    drawn = np.stack([ag.dropout(w, p, rng) for rng in np.random.default_rng(0).spawn(samples)])
    standard_error = w * np.sqrt(p / (1 - p) / samples)
    assert (np.abs(drawn.mean(0) - w) < 5 * standard_error).all()
    want = np.sqrt(p / (1 - p) * (w**2).sum())
    np.testing.assert_allclose(drawn.sum(-1).std(), want, rtol=5 / np.sqrt(2 * samples))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dropout_zeroes_a_share_and_scales_the_rest(dtype):
    x = np.ones(100_000, dtype)
    y = ag.dropout(x, 0.3, np.random.default_rng(0))
    assert y.dtype == dtype
    assert set(np.unique(y)) == {0, dtype(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(x))
    np.testing.assert_array_equal(ag.dropout(x, 0.0, np.random.default_rng(0)), x)
    assert (ag.dropout(x, 1.0, np.random.default_rng(0)) == 0).all()
    assert ag.dropout(x, 0.0, np.random.default_rng(0)) is not x


def test_attention_dropout():
    q, k, v = qkv()
    plain = ag.scaled_dot_product_attention(q, k, v, return_weights=True)[1]
    out, w = ag.scaled_dot_product_attention(q, k, v, dropout_p=0.5, rng=np.random.default_rng(0), return_weights=True)
    np.testing.assert_allclose(w[w > 0], 2 * plain[w > 0], **F64)
    assert 0.3 < (w == 0).mean() < 0.7
    np.testing.assert_allclose(out, w @ v, **F64)
    again = ag.scaled_dot_product_attention(q, k, v, dropout_p=0.5, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again, out)
    assert (ag.scaled_dot_product_attention(q, k, v, dropout_p=1.0, rng=np.random.default_rng(0)) == 0).all()


# ------------------------------------------------------------------------------------- from token to output


def test_self_and_cross_attention_project_and_attend():
    x, context = normal(2, 5, 12), normal(2, 7, 9, seed=1)
    w_q, w_k, w_v = normal(12, 8), normal(9, 8, seed=1), normal(9, 6, seed=2)
    out, w = ag.cross_attention(x, context, w_q, w_k, w_v, return_weights=True)
    want = torch_sdpa(T(x) @ T(w_q), T(context) @ T(w_k), T(context) @ T(w_v)).numpy()
    np.testing.assert_allclose(out, want, **F64)
    assert w.shape == (2, 5, 7)
    np.testing.assert_array_equal(
        ag.self_attention(x, w_q, w_q, w_q, is_causal=True), ag.cross_attention(x, x, w_q, w_q, w_q, is_causal=True)
    )


def test_cross_attention_is_a_block_of_self_attention_over_the_concatenation():
    target, source = normal(3, 8), normal(5, 8, seed=1)
    w = [normal(8, 4, seed=s) for s in range(3)]
    both = np.concatenate([target, source])
    masked = ag.self_attention(both, *w, mask_mod=lambda b, h, i, j: j >= 3)
    np.testing.assert_allclose(masked[:3], ag.cross_attention(target, source, *w), **F64)


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_self_attention_is_permutation_equivariant(order):
    order = list(order)
    x, w = normal(6, 8), [normal(8, 8, seed=s) for s in range(3)]
    np.testing.assert_allclose(ag.self_attention(x[order], *w), ag.self_attention(x, *w)[order], rtol=1e-11)
    if order != sorted(order):  # a causal mask breaks it: position is visible through it
        moved = ag.self_attention(x[order], *w, is_causal=True)
        assert not np.allclose(moved, ag.self_attention(x, *w, is_causal=True)[order])


# ------------------------------------------------------------------------------------------- named errors

Q, K, V = qkv()
BAD = {
    "dtype of query": (TypeError, "query", lambda: ag.scaled_dot_product_attention(Q.astype(complex), K, V)),
    "strings": (TypeError, "query", lambda: ag.scaled_dot_product_attention([["a"]], K, V)),
    "ragged": (ValueError, "query", lambda: ag.scaled_dot_product_attention([[1.0], [1.0, 2.0]], K, V)),
    "mixed dtypes": (TypeError, "query, key, value", lambda: ag.scaled_dot_product_attention(Q.astype("f4"), K, V)),
    "one dimension": (ValueError, "query", lambda: ag.scaled_dot_product_attention(Q[0, 0, 0], K, V)),
    "width of key": (ValueError, "key", lambda: ag.scaled_dot_product_attention(Q, K[..., :5], V)),
    "length of value": (ValueError, "value", lambda: ag.scaled_dot_product_attention(Q, K, V[..., :3, :])),
    "width 0": (ValueError, "query", lambda: ag.scaled_dot_product_attention(Q[..., :0], K[..., :0], V)),
    "leading": (ValueError, "enable_gqa", lambda: ag.scaled_dot_product_attention(Q, K[:, :2], V[:, :2])),
    "heads": (
        ValueError,
        "query has 4 heads and key 3",
        lambda: ag.scaled_dot_product_attention(Q, K[:, :3], V[:, :3], enable_gqa=True),
    ),
    "value heads": (
        ValueError,
        "value has 1 heads",
        lambda: ag.scaled_dot_product_attention(Q, K, V[:, :1], enable_gqa=True),
    ),
    "no head dimension": (
        ValueError,
        "query",
        lambda: ag.scaled_dot_product_attention(Q[0, 0], K[0, 0], V[0, 0], enable_gqa=True),
    ),
    "mask shape": (ValueError, "attn_mask", lambda: ag.scaled_dot_product_attention(Q, K, V, boolean(5, 6))),
    "mask too big": (ValueError, "attn_mask", lambda: ag.scaled_dot_product_attention(Q, K, V, boolean(3, 2, 4, 5, 7))),
    "mask of integers": (
        TypeError,
        "attn_mask",
        lambda: ag.scaled_dot_product_attention(Q, K, V, np.ones((5, 7), int)),
    ),
    "NaN in mask": (
        ValueError,
        "attn_mask holds NaN",
        lambda: ag.scaled_dot_product_attention(Q, K, V, np.where(lower(5, 7), 0.0, np.nan)),
    ),
    "+inf in mask": (
        ValueError,
        r"attn_mask holds \+inf",
        lambda: ag.scaled_dot_product_attention(Q, K, V, np.where(lower(5, 7), 0.0, np.inf)),
    ),
    "mask_mod dtype": (
        TypeError,
        "mask_mod",
        lambda: ag.scaled_dot_product_attention(Q, K, V, mask_mod=lambda b, h, i, j: i - j),
    ),
    "mask_mod shape": (
        ValueError,
        "mask_mod",
        lambda: ag.scaled_dot_product_attention(Q, K, V, mask_mod=lambda b, h, i, j: np.ones(3, bool)),
    ),
    "score_mod shape": (
        ValueError,
        "score_mod",
        lambda: ag.scaled_dot_product_attention(Q, K, V, score_mod=lambda s, b, h, i, j: np.ones(3)),
    ),
    "score_mod dtype": (
        TypeError,
        "score_mod",
        lambda: ag.scaled_dot_product_attention(Q, K, V, score_mod=lambda s, b, h, i, j: s > 0),
    ),
    "dropout without rng": (TypeError, "rng", lambda: ag.scaled_dot_product_attention(Q, K, V, dropout_p=0.1)),
    "dropout above 1": (ValueError, "dropout_p", lambda: ag.scaled_dot_product_attention(Q, K, V, dropout_p=1.1)),
    "dropout NaN": (ValueError, "dropout_p", lambda: ag.scaled_dot_product_attention(Q, K, V, dropout_p=np.nan)),
    "scale": (ValueError, "scale", lambda: ag.scaled_dot_product_attention(Q, K, V, scale=np.inf)),
    "scale type": (TypeError, "scale", lambda: ag.scaled_dot_product_attention(Q, K, V, scale="1")),
    "softcap": (ValueError, "softcap", lambda: ag.scaled_dot_product_attention(Q, K, V, softcap=0.0)),
    "scores: width": (ValueError, "key", lambda: ag.attention_scores(Q, K[..., :5])),
    "backward: grad_out": (
        ValueError,
        "grad_out",
        lambda: ag.scaled_dot_product_attention_backward(Q, Q, K, V),
    ),
    "backward: score_mod alone": (
        TypeError,
        "score_mod_grad",
        lambda: ag.scaled_dot_product_attention_backward(Q, Q, K, V, score_mod=lambda s, b, h, i, j: s),
    ),
    "backward: score_mod_grad alone": (
        TypeError,
        "score_mod_grad came alone",
        lambda: ag.scaled_dot_product_attention_backward(Q, Q, K, V, score_mod_grad=lambda s, b, h, i, j: s),
    ),
    "softmax temperature 0": (ValueError, "temperature", lambda: ag.softmax([1.0], temperature=0.0)),
    "softmax temperature NaN": (ValueError, "temperature", lambda: ag.softmax([1.0], temperature=np.nan)),
    "softmax temperature type": (TypeError, "temperature", lambda: ag.softmax([1.0], temperature=None)),
    "softmax axis": (ValueError, "axis", lambda: ag.softmax([1.0], axis=1)),
    "softmax axis type": (TypeError, "axis", lambda: ag.softmax([1.0], axis=None)),
    "softmax of a number": (ValueError, "axis", lambda: ag.softmax(1.0)),
    "softmax of booleans": (TypeError, "x", lambda: ag.softmax([True])),
    "softmax where dtype": (TypeError, "where", lambda: ag.softmax([1.0, 2.0], where=[1, 0])),
    "softmax where shape": (ValueError, "where", lambda: ag.softmax([1.0, 2.0], where=[[True, True]] * 2)),
    "log_sum_exp axis": (ValueError, "axis", lambda: ag.log_sum_exp([1.0], axis=5)),
    "softmax_backward shape": (ValueError, "grad", lambda: ag.softmax_backward([1.0], [0.5, 0.5])),
    "softmax_backward axis": (ValueError, "axis", lambda: ag.softmax_backward([1.0], [1.0], axis=1)),
    "softmax_jacobian": (ValueError, "weights", lambda: ag.softmax_jacobian(1.0)),
    "entropy negative": (ValueError, "weights", lambda: ag.attention_entropy([-0.1, 1.1])),
    "entropy base 1": (ValueError, "base", lambda: ag.attention_entropy([1.0], base=1)),
    "entropy base": (ValueError, "base", lambda: ag.attention_entropy([1.0], base=-2)),
    "dropout p": (ValueError, "p is 2", lambda: ag.dropout([1.0], 2, np.random.default_rng(0))),
    "dropout rng": (TypeError, "rng", lambda: ag.dropout([1.0], 0.5, 0)),
    "projection": (ValueError, "w_k", lambda: ag.self_attention(Q, np.eye(8), np.eye(7), np.eye(8))),
    "projection of a vector": (ValueError, "x", lambda: ag.self_attention(Q[0, 0, 0], *[np.eye(8)] * 3)),
    "context": (ValueError, "w_v", lambda: ag.cross_attention(Q, K, np.eye(8), np.eye(8), np.eye(3))),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_its_named_error(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.type is error
    assert any(says in str(caught.value) for says in ("wanted", "must share", "do not broadcast"))


def test_every_public_name_is_tested_here():
    text = Path(__file__).read_text(encoding="utf-8")
    missing = [name for name in core.__all__ if f"ag.{name}(" not in text]
    assert not missing
