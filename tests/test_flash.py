"""FlashAttention against PyTorch, FlexAttention, the dense reference and the properties of attention."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import attn_guide as ag
from attn_guide import _pool, flash

torch = pytest.importorskip("torch")
F = torch.nn.functional

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def inputs(seed, lead=(2, 4), n=33, m=57, d_k=16, d_v=8, h_kv=None, dtype="float64", size=1.0):
    """Query (*lead, n, d_k), key and value; ``h_kv`` replaces the last leading dimension of key and value."""
    rng = np.random.default_rng(seed)
    kv_lead = lead if h_kv is None else (*lead[:-1], h_kv)
    shapes = ((*lead, n, d_k), (*kv_lead, m, d_k), (*kv_lead, m, d_v))
    return tuple((size * rng.standard_normal(s)).astype(dtype) for s in shapes)


def assert_close(actual, expected, relative):
    """Compare against the largest entry of ``expected``: sums of many terms cancel in single entries."""
    assert actual.shape == expected.shape
    assert not np.isnan(actual).any()
    scale = np.max(np.abs(expected), initial=0.0)
    assert np.max(np.abs(actual - expected), initial=0.0) <= relative * max(scale, 1e-300)


def torch_attention(q, k, v, **options):
    tensors = (torch.from_numpy(np.ascontiguousarray(x)) for x in (q, k, v))
    mask = options.pop("attn_mask", None)
    if mask is not None:
        options["attn_mask"] = torch.from_numpy(mask)
    return F.scaled_dot_product_attention(*tensors, **options).numpy()


# ------------------------------------------------------------------------------- independent implementations


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (33, 57), (257, 100), (130, 1025)])
@pytest.mark.parametrize("case", ["plain", "causal", "boolean", "float", "gqa", "scale"])
def test_equals_torch_sdpa(dtype, n, m, case):
    q, k, v = inputs(n + m, n=n, m=m, dtype=dtype, h_kv=2 if case == "gqa" else None)
    rng = np.random.default_rng(1)
    options = {
        "plain": {},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": rng.random((2, 1, n, m)) < 0.5},
        "float": {"attn_mask": (3 * rng.standard_normal((4, n, m))).astype(dtype)},
        "gqa": {"enable_gqa": True},
        "scale": {"scale": -0.7},
    }[case]
    expected = torch_attention(q, k, v, **options)
    for blocks in ({}, {"block_q": 16, "block_k": 7}):
        assert_close(ag.flash_attention(q, k, v, **options, **blocks), expected, TOLERANCE[dtype])


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*")
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize(
    "mask",
    [
        ag.causal,
        ag.sliding_window(20, 3),
        ag.causal & ag.document(np.arange(96) // 40),
        ag.longformer(8, [0, 50]),
        ag.per_head([ag.causal, ag.strided(3)]),
    ],
    ids=str,
)
def test_equals_flex_attention_under_the_same_mask(mask, softcap):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = inputs(3, lead=(2, 2), n=96, m=96)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    block_mask = create_block_mask(mask, 2, 2, 96, 96, device="cpu")

    def cap(score, b, h, q_idx, kv_idx):
        return softcap * torch.tanh(score / softcap)

    expected = flex_attention(*tensors, block_mask=block_mask, score_mod=cap if softcap else None).numpy()
    actual = ag.flash_attention(q, k, v, mask_mod=mask, softcap=softcap, block_q=32, block_k=20)
    assert_close(actual, expected, 1e-12)


def torch_gradients(q, k, v, grad_out, *, allowed=None, bias=None, softcap=None, scale=None, group=1):
    """Autograd through the textbook formula, with fully masked rows set to 0."""
    q, k, v = (torch.tensor(x, requires_grad=True) for x in (q, k, v))
    keys, values = (x.repeat_interleave(group, -3) if group > 1 else x for x in (k, v))
    s = q @ keys.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        s = softcap * torch.tanh(s / softcap)
    if bias is not None:
        s = s + torch.tensor(bias)
    if allowed is not None:
        s = s.masked_fill(~torch.tensor(allowed), -torch.inf)
    dead = (s == -torch.inf).all(-1, keepdim=True)
    out = torch.softmax(s.masked_fill(dead, 0.0), -1).masked_fill(dead, 0.0) @ values
    out.backward(torch.tensor(grad_out))
    return out.detach().numpy(), [x.grad.numpy() for x in (q, k, v)]


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("case", ["plain", "causal", "boolean", "float", "mask_mod", "gqa", "scale"])
def test_gradients_equal_torch_autograd(case, softcap):
    n, m = 70, 45
    q, k, v = inputs(5, n=n, m=m, h_kv=2 if case == "gqa" else None)
    rng = np.random.default_rng(2)
    grad_out = rng.standard_normal((2, 4, n, 8))
    allowed = rng.random((2, 4, n, m)) < 0.3
    allowed[:, :, 4] = False  # a query that sees nothing
    allowed[..., 7] = False  # a key that is seen by none
    bias = 2 * rng.standard_normal((n, m))
    bias[5] = -np.inf
    options, reference = {
        "plain": ({}, {}),
        "causal": ({"is_causal": True}, {"allowed": np.tri(n, m, dtype=bool)}),
        "boolean": ({"attn_mask": allowed}, {"allowed": allowed}),
        "float": ({"attn_mask": bias}, {"bias": bias}),
        "mask_mod": (
            {"mask_mod": ag.sliding_window(9, 2)},
            {"allowed": ag.sliding_window(9, 2).materialize(n, m)},
        ),
        "gqa": ({"enable_gqa": True}, {"group": 2}),
        "scale": ({"scale": 0.9}, {"scale": 0.9}),
    }[case]
    options |= {"softcap": softcap, "block_q": 32, "block_k": 19}
    out, lse = ag.flash_attention(q, k, v, return_lse=True, **options)
    grads = ag.flash_attention_backward(grad_out, q, k, v, out, lse, **options)
    expected_out, expected = torch_gradients(q, k, v, grad_out, softcap=softcap, **reference)
    assert_close(out, expected_out, 1e-12)
    for actual, wanted in zip(grads, expected, strict=True):
        assert_close(actual, wanted, 1e-12)
    if case == "boolean":
        assert not grads[0][:, :, 4].any()
        assert not grads[1][:, :, 7].any()
        assert not grads[2][:, :, 7].any()


def test_gradients_of_broadcast_inputs_add_up():
    q, k, v = inputs(6, lead=(2, 3), n=20, m=30)
    k, v = k[:1], v[0, :1]  # one key for both batch items, one value for all
    grad_out = np.random.default_rng(0).standard_normal((2, 3, 20, 8))
    out, lse = ag.flash_attention(q, k, v, return_lse=True)
    grads = ag.flash_attention_backward(grad_out, q, k, v, out, lse)
    _, expected = torch_gradients(q, k, v, grad_out)
    for actual, wanted in zip(grads, expected, strict=True):
        assert_close(actual, wanted, 1e-12)


def test_gradients_equal_finite_differences():
    q, k, v = inputs(7, lead=(), n=6, m=9, d_k=3, d_v=2)
    grad_out = np.random.default_rng(0).standard_normal((6, 2))
    options = {"mask_mod": ag.sliding_window(3, 1), "softcap": 2.0, "block_q": 4, "block_k": 4}

    def loss(arrays):
        return float((ag.flash_attention(*arrays, **options) * grad_out).sum())

    out, lse = ag.flash_attention(q, k, v, return_lse=True, **options)
    grads = ag.flash_attention_backward(grad_out, q, k, v, out, lse, **options)
    step = 1e-6
    for which, grad in enumerate(grads):
        numeric = np.empty_like(grad)
        for at in np.ndindex(grad.shape):
            moved = [x.copy() for x in (q, k, v)]
            moved[which][at] += step
            above = loss(moved)
            moved[which][at] -= 2 * step
            numeric[at] = (above - loss(moved)) / (2 * step)
        np.testing.assert_allclose(grad, numeric, atol=1e-8)


def test_gradients_in_float32_are_near_those_in_float64():
    q, k, v = inputs(8, n=200, m=300, h_kv=2)
    grad_out = np.random.default_rng(0).standard_normal((2, 4, 200, 8))

    def gradients(*arrays):
        out, lse = ag.flash_attention(*arrays[1:], is_causal=True, enable_gqa=True, return_lse=True)
        return ag.flash_attention_backward(*arrays, out, lse, is_causal=True, enable_gqa=True)

    exact = gradients(grad_out, q, k, v)
    single = gradients(*(x.astype(np.float32) for x in (grad_out, q, k, v)))
    for actual, wanted in zip(single, exact, strict=True):
        assert actual.dtype == np.float32
        assert_close(actual, wanted, 1e-5)


# ------------------------------------------------------------------------------------------------ properties


@st.composite
def problems(draw):
    n, m = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    h_kv, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    lead = draw(st.sampled_from([(), (2,), (1, 2)]))
    dtype = draw(st.sampled_from(["float64", "float32"]))
    size = draw(st.sampled_from([0.0, 1.0, 1e2]))  # scores up to about 1e5
    q, k, v = inputs(
        draw(st.integers(0, 2**32)),
        lead=(*lead, h_kv * group),
        n=n,
        m=m,
        d_k=draw(st.integers(1, 9)),
        d_v=draw(st.integers(0, 5)),
        h_kv=h_kv,
        dtype=dtype,
        size=size,
    )
    v = v / v.dtype.type(size or 1.0)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    options = {"enable_gqa": True, "is_causal": draw(st.booleans())}
    kind = draw(st.sampled_from(["none", "boolean", "float"]))
    if kind == "boolean":
        options["attn_mask"] = rng.random((n, m)) < draw(st.sampled_from([0.0, 0.2, 1.0]))
    elif kind == "float":
        bias = rng.standard_normal((h_kv * group, n, m)) * draw(st.sampled_from([1.0, 1e4]))
        bias[rng.random(bias.shape) < 0.3] = -np.inf
        options["attn_mask"] = bias.astype(dtype)
    options["mask_mod"] = draw(
        st.sampled_from([None, ag.sliding_window(3, 2), ag.strided(3), ag.causal | ag.prefix(4), ~ag.causal])
    )
    options["softcap"] = draw(st.sampled_from([None, None, 0.5, 30.0]))
    blocks = {"block_q": draw(st.integers(1, 50)), "block_k": draw(st.integers(1, 50))}
    return (q, k, v), options, blocks


@settings(max_examples=250, deadline=None)
@given(problems())
def test_equals_the_dense_reference(problem):
    arrays, options, blocks = problem
    dense = ag.scaled_dot_product_attention(*arrays, **options)
    out, lse = ag.flash_attention(*arrays, **options, **blocks, return_lse=True)
    # A score is known to eps times its size, and a weight relative to what its score is known to.
    q, k, _ = arrays
    largest = np.max(np.linalg.norm(q, axis=-1), initial=0.0) * np.max(np.linalg.norm(k, axis=-1), initial=0.0)
    bias = options.get("attn_mask", np.zeros((1, 1), bool))
    if bias.dtype != bool:
        largest += np.max(np.abs(bias[np.isfinite(bias)]), initial=0.0)
    tolerance = np.finfo(q.dtype).eps * (20 + 8 * float(largest))
    assert out.dtype == arrays[0].dtype
    assert_close(out, dense, tolerance)
    assert not np.isnan(lse).any()
    seen = np.isfinite(lse)
    assert not out[~seen].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_log_sum_exp_makes_rows_sum_to_one(n, m, seed):
    q, k, _ = inputs(seed, lead=(3,), n=n, m=m)
    ones, lse = ag.flash_attention(q, k, np.ones((3, m, 1)), is_causal=True, block_q=13, block_k=11, return_lse=True)
    np.testing.assert_allclose(ones, 1.0, rtol=1e-14)
    scores = np.where(np.tri(n, m, dtype=bool), q @ k.swapaxes(-1, -2) / 4.0, -np.inf)
    np.testing.assert_allclose(lse, ag.log_sum_exp(scores), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("top", [1e4, -1e4])
def test_extreme_scores(dtype, top):
    """Key 0 outdoes key 1 by 1e4 (or the reverse), in the same tile and in different ones."""
    q, k, v = np.array([[1.0]], dtype), np.array([[top], [0.0]], dtype), np.array([[1.0], [2.0]], dtype)
    for block_k in (1, 2):
        out, lse = ag.flash_attention(q, k, v, scale=1.0, block_k=block_k, return_lse=True)
        assert out.item() == (1.0 if top > 0 else 2.0)
        assert lse.item() == pytest.approx(max(top, 0.0))
    equal = ag.flash_attention(q, np.full((2, 1), top, dtype), v, scale=1.0)
    assert equal.item() == pytest.approx(1.5)


def test_values_of_any_size_survive():
    """The path without a maximum must not be taken where its powers of two would leave the range of float32."""
    q, k, v = inputs(9, n=40, m=50, dtype="float32", size=1.5)
    for factor in (1e-37, 1e-25, 1e-10, 1e15, 1e30):
        out = ag.flash_attention(q, k, v * np.float32(factor))
        assert_close(out.astype(np.float64) / factor, ag.scaled_dot_product_attention(q, k, v).astype(np.float64), 1e-5)


def test_both_paths_agree(monkeypatch):
    q, k, v = inputs(10, n=100, m=130, dtype="float32")
    options = {"mask_mod": ag.sliding_window(20, 30), "block_q": 32, "block_k": 32, "return_lse": True}
    taken = []
    original = flash._safe_without_maximum

    def spy(*args):
        taken.append(original(*args))
        return taken[-1]

    monkeypatch.setattr(flash, "_safe_without_maximum", spy)
    fast = ag.flash_attention(q, k, v, **options)
    monkeypatch.setattr(flash, "_safe_without_maximum", lambda *args: False)
    careful = ag.flash_attention(q, k, v, **options)
    assert all(taken)
    for a, b in zip(fast, careful, strict=True):
        assert_close(a, b, 1e-6)
    taken.clear()
    monkeypatch.setattr(flash, "_safe_without_maximum", spy)
    ag.flash_attention(q * 1000, k, v)
    ag.flash_attention(q, k, v, attn_mask=np.zeros((100, 130), np.float32))
    ag.flash_attention(q, np.where(k > 3.0, np.nan, k), v)
    assert not any(taken)


def test_nothing_leaks_through_a_mask():
    q, k, v = inputs(11, n=64, m=64)
    before = ag.flash_attention(q, k, v, is_causal=True, block_q=16, block_k=16)
    k2, v2 = k.copy(), v.copy()
    k2[..., 40:, :] = 1e6
    v2[..., 40:, :] = -1e6
    after = ag.flash_attention(q, k2, v2, is_causal=True, block_q=16, block_k=16)
    # A different path may be taken (the keys became long), so equal to rounding and not to the bit.
    assert_close(after[..., :40, :], before[..., :40, :], 1e-14)
    out, lse = ag.flash_attention(q, k2, v2, is_causal=True, return_lse=True)
    grad_out = np.zeros_like(out)
    grad_out[..., :40, :] = 1.0
    _, dk, dv = ag.flash_attention_backward(grad_out, q, k2, v2, out, lse, is_causal=True)
    assert not dk[..., 40:, :].any()
    assert not dv[..., 40:, :].any()


def test_masked_tiles_are_not_computed(monkeypatch):
    """Count products: the causal call makes the tiles on and below the diagonal, a window only those it touches."""
    q, k, v = inputs(12, lead=(), n=1024, m=1024)
    cells = []
    original = flash._capped_scores

    def counted(q, tile, *rest):
        cells.append(len(q) * len(tile.value))
        return original(q, tile, *rest)

    monkeypatch.setattr(flash, "_capped_scores", counted)
    for options, most in (
        ({}, 1024**2),
        ({"is_causal": True}, 1024 * (1024 + 64) // 2),
        ({"mask_mod": ag.causal}, 1024 * (1024 + 64) // 2),
        ({"mask_mod": ag.sliding_window(63, 0)}, 2 * 64 * 1024),
        ({"attn_mask": np.zeros((1024, 1024), bool)}, 0),
        ({"attn_mask": np.full((1024, 1024), -np.inf)}, 0),
    ):
        cells.clear()
        ag.flash_attention(q, k, v, block_q=64, block_k=64, **options)
        assert sum(cells) <= most


def test_a_relative_mask_is_evaluated_once_per_offset():
    calls = []

    def window(b, h, q_idx, kv_idx):
        calls.append(np.broadcast(q_idx, kv_idx).size)
        return (kv_idx - q_idx <= 3) & (kv_idx - q_idx >= -40)

    q, k, v = inputs(13, lead=(), n=256, m=256)
    relative = ag.flash_attention(q, k, v, mask_mod=ag.Mask(window, relative=True), block_q=64, block_k=64)
    assert max(calls) == 127
    assert_close(relative, ag.flash_attention(q, k, v, mask_mod=window), 1e-14)


def test_memory_grows_as_n_and_not_as_its_square():
    """At n = 16384 with 8 heads the output alone is 34 MB; a square of booleans would be 268 MB."""
    rng = np.random.default_rng(0)

    def peak(n, heads):
        q, k, v = (rng.standard_normal((heads, n, 64), dtype=np.float32) for _ in range(3))
        return ag.peak_memory(lambda: ag.flash_attention(q, k, v, mask_mod=ag.sliding_window(256, 0), block_k=2048))

    assert peak(16384, 8) < 64e6
    sizes = [4096, 8192, 16384]
    assert ag.fit_exponent(sizes, [peak(n, 1) for n in sizes]).exponent < 1.1


# ------------------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_accumulates_in_float32(name):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    q, k, v = (x.astype(dtype) for x in inputs(14, n=50, m=900))
    out, lse = ag.flash_attention(q, k, v, return_lse=True)
    exact = ag.scaled_dot_product_attention(*(x.astype(np.float64) for x in (q, k, v)))
    assert (out.dtype, lse.dtype) == (dtype, np.float32)
    # The only half-precision rounding is that of the result: half a unit in the last place, 2^-11 or 2^-8.
    unit = 2.0**-8 if name == "bfloat16" else 2.0**-11
    assert np.max(np.abs(out.astype(np.float64) - exact) / np.maximum(np.abs(exact), 1e-4)) < 1.05 * unit
    grads = ag.flash_attention_backward(np.ones_like(out), q, k, v, out, lse)
    assert {g.dtype for g in grads} == {dtype}


def test_inputs_of_any_layout_are_left_alone():
    q, k, v = inputs(15, n=30, m=30, d_v=16)
    expected = ag.flash_attention(q, k, v)
    for x in (q, k, v):
        x.setflags(write=False)
    np.testing.assert_array_equal(ag.flash_attention(q, k, v), expected)
    turned = [np.asfortranarray(x) for x in (q, k, v)]
    assert_close(ag.flash_attention(*turned), expected, 1e-14)
    mirrored = [x[..., ::-1, :] for x in (q, k, v)]
    assert_close(ag.flash_attention(*mirrored)[..., ::-1, :], expected, 1e-14)
    assert_close(ag.flash_attention(q.tolist(), k.tolist(), v.tolist()), expected, 1e-14)
    whole = ag.flash_attention(np.eye(3, dtype=int), np.eye(3, dtype=int), np.eye(3, dtype=int))
    assert whole.dtype == np.float64


@pytest.mark.parametrize(("n", "m", "d_v"), [(0, 5, 2), (5, 0, 2), (5, 5, 0), (0, 0, 0)])
def test_zero_lengths(n, m, d_v):
    q, k, v = inputs(16, n=n, m=m, d_v=d_v)
    out, lse = ag.flash_attention(q, k, v, return_lse=True)
    assert out.shape == (2, 4, n, d_v)
    assert lse.shape == (2, 4, n)
    grads = ag.flash_attention_backward(np.ones_like(out), q, k, v, out, lse)
    assert [g.shape for g in grads] == [x.shape for x in (q, k, v)]
    if m == 0:
        assert not out.any()
        assert (lse == -np.inf).all()


def test_no_heads_and_no_batch():
    out = ag.flash_attention(np.zeros((0, 4, 5, 2)), np.zeros((0, 4, 5, 2)), np.zeros((0, 4, 5, 3)))
    assert out.shape == (0, 4, 5, 3)


GOOD = {
    "query": np.zeros((4, 5, 8)),
    "key": np.zeros((4, 6, 8)),
    "value": np.zeros((4, 6, 3)),
}
BAD = [
    ({"query": np.zeros(8)}, ValueError, "query"),
    ({"query": np.zeros((4, 5, 8), complex)}, TypeError, "query"),
    ({"query": np.zeros((4, 5, 8), np.float32)}, TypeError, "query float32"),
    ({"key": np.zeros((4, 6, 7))}, ValueError, "key"),
    ({"value": np.zeros((4, 5, 3))}, ValueError, "value"),
    ({"key": np.zeros((3, 6, 8))}, ValueError, "broadcast"),
    ({"key": np.zeros((3, 6, 8)), "value": np.zeros((3, 6, 3)), "enable_gqa": True}, ValueError, "heads"),
    ({"attn_mask": np.zeros((5, 7), bool)}, ValueError, "attn_mask"),
    ({"attn_mask": np.zeros((5, 6), int)}, TypeError, "attn_mask"),
    ({"attn_mask": np.full((5, 6), np.nan)}, ValueError, "attn_mask"),
    ({"attn_mask": np.full((5, 6), np.inf)}, ValueError, "attn_mask"),
    ({"mask_mod": lambda b, h, q, k: q * k}, TypeError, "mask_mod"),
    ({"mask_mod": lambda b, h, q, k: np.ones((2, 2), bool)}, ValueError, "mask_mod"),
    ({"scale": np.nan}, ValueError, "scale"),
    ({"scale": "x"}, TypeError, "scale"),
    ({"softcap": 0.0}, ValueError, "softcap"),
    ({"block_q": 0}, ValueError, "block_q"),
    ({"block_k": 2.5}, TypeError, "block_k"),
]


@pytest.mark.parametrize(("change", "error", "names"), BAD)
def test_bad_input_names_the_argument(change, error, names):
    with pytest.raises(error, match=names):
        ag.flash_attention(**(GOOD | change))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"grad_out": np.zeros((4, 5, 2))}, "grad_out"),
        ({"out": np.zeros((4, 6, 3))}, "out"),
        ({"lse": np.zeros((4, 5, 1))}, "lse"),
    ],
)
def test_bad_backward_input_names_the_argument(change, names):
    saved = {"grad_out": np.zeros((4, 5, 3)), "out": np.zeros((4, 5, 3)), "lse": np.zeros((4, 5))}
    ag.flash_attention_backward(**GOOD, **saved)
    with pytest.raises(ValueError, match=names):
        ag.flash_attention_backward(**GOOD, **(saved | change))


# ------------------------------------------------------------------------------------------- online softmax


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 2**32), st.sampled_from([1.0, 1e4]))
def test_every_step_is_the_softmax_of_what_was_read(m, size, seed, spread):
    rng = np.random.default_rng(seed)
    scores = spread * rng.standard_normal((3, m))
    scores[rng.random((3, m)) < 0.3] = -np.inf
    value = rng.standard_normal((3, m, 2))
    steps = list(ag.online_softmax(scores, value, block_size=size))
    assert [s.block.start for s in steps] == list(range(0, m, size))
    for step in steps:
        read = scores[:, : step.block.stop]
        weights = ag.softmax(read)
        expected = (weights[:, None, :] @ value[:, : step.block.stop])[:, 0]
        np.testing.assert_allclose(step.result, expected, atol=1e-13)
        np.testing.assert_array_equal(step.running_max, read.max(axis=1))
        finite = np.isfinite(step.running_max)
        lse = step.running_max[finite] + np.log(step.running_sum[finite])
        np.testing.assert_allclose(lse, ag.log_sum_exp(read)[finite], rtol=1e-13, atol=1e-13)
        assert (step.running_sum[~finite] == 0).all()
    *_, last = ag.online_softmax(scores, block_size=size)
    np.testing.assert_allclose(last.result, ag.softmax(scores), atol=1e-15)


def test_rescale_factors_undo_the_old_maximum():
    steps = list(ag.online_softmax([0.0, np.log(4.0), 0.0]))
    assert [float(s.rescale) for s in steps] == pytest.approx([0.0, 0.25, 1.0])
    assert [float(s.running_sum) for s in steps] == pytest.approx([1.0, 1.25, 1.5])


@pytest.mark.parametrize(
    ("args", "options", "error", "names"),
    [
        ((1.0,), {}, ValueError, "scores"),
        ((np.zeros(3, complex),), {}, TypeError, "scores"),
        ((np.zeros(3), np.zeros((2, 1))), {}, ValueError, "value"),
        ((np.zeros(3), np.zeros(3)), {}, ValueError, "value"),
        ((np.zeros(3),), {"block_size": 0}, ValueError, "block_size"),
    ],
)
def test_online_softmax_checks_at_the_call_and_not_at_the_first_step(args, options, error, names):
    with pytest.raises(error, match=names):
        ag.online_softmax(*args, **options)


# ------------------------------------------------------------------------------------------ the thread pool


def blas_threads():
    get, _ = _pool._blas()
    return get()


needs_blas = pytest.mark.skipif(_pool._blas() is None, reason="this BLAS cannot be asked for its threads")


@pytest.fixture
def four_threads(monkeypatch):
    """Behave as on a machine with four CPUs, BLAS set to use them."""
    get, set_ = _pool._blas()
    before = get()
    set_(4)
    monkeypatch.setattr(_pool, "_cpus", lambda: 4)
    yield
    set_(before)


@needs_blas
def test_pool_is_as_wide_as_blas_and_holds_blas_at_one(four_threads):
    seen, threads, gate = [], set(), threading.Barrier(4, timeout=20)

    def task(i):
        gate.wait()  # passes only when four tasks run at once
        seen.append((i, blas_threads()))
        threads.add(threading.get_ident())

    _pool.parallel(task, range(12))
    assert sorted(i for i, _ in seen) == list(range(12))
    assert {width for _, width in seen} == {1}
    assert len(threads) == 4
    assert blas_threads() == 4


@needs_blas
def test_pool_respects_threadpoolctl(four_threads):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1):
        assert _pool.num_threads() == 1
        threads = set()
        _pool.parallel(lambda i: threads.add(threading.get_ident()), range(8))
        assert threads == {threading.get_ident()}
    assert _pool.num_threads() == 4


@needs_blas
def test_nested_calls_run_in_place(four_threads):
    pairs = []

    def outer(i):
        here = threading.get_ident()

        def inner(j):
            assert threading.get_ident() == here
            pairs.append((i, j))

        _pool.parallel(inner, range(3))

    _pool.parallel(outer, range(5))
    assert sorted(pairs) == list(product(range(5), range(3)))


@needs_blas
def test_the_first_error_is_raised_and_the_pool_goes_on(four_threads):
    def task(i):
        if i == 3:
            raise KeyError("three")

    with pytest.raises(KeyError, match="three"):
        _pool.parallel(task, range(20))
    assert blas_threads() == 4
    done = []
    _pool.parallel(done.append, range(20))
    assert sorted(done) == list(range(20))


@needs_blas
def test_calls_from_several_threads_share_the_pool(four_threads):
    q, k, v = inputs(17, n=200, m=200)
    expected = ag.flash_attention(q, k, v)
    results = []
    callers = [threading.Thread(target=lambda: results.append(ag.flash_attention(q, k, v))) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert len(results) == 6
    for result in results:
        np.testing.assert_array_equal(result, expected)
    assert blas_threads() == 4


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    q, k, v = inputs(18, n=700, m=300, dtype="float32")
    results = []
    for width in (1, 3):
        monkeypatch.setattr(flash, "num_threads", lambda width=width: width)
        monkeypatch.setattr(_pool, "num_threads", lambda width=width: width)
        results.append(ag.flash_attention(q, k, v, is_causal=True))
    np.testing.assert_array_equal(*results)


def run_python(code, **environment):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


@needs_blas
def test_environment_sets_the_width():
    code = "from attn_guide import _pool; print(_pool.num_threads())"
    assert run_python(code, OMP_NUM_THREADS="1") == ["1"]
    assert run_python(code, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="2") == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_afresh():
    """The child has the parent's pool object but none of its threads: waiting for them would never end."""
    code = """
    import os
    import numpy as np
    import attn_guide as ag
    from attn_guide import _pool

    _pool._cpus = lambda: 4
    if _pool._blas():
        _pool._blas()[1](4)
    x = np.random.default_rng(0).standard_normal((8, 300, 16))
    before = ag.flash_attention(x, x, x)
    child = os.fork()
    if child == 0:
        after = ag.flash_attention(x, x, x)
        os._exit(0 if np.array_equal(before, after) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_python(code) == ["0"]


def test_importing_starts_no_thread():
    code = "import threading, attn_guide; print(threading.active_count())"
    assert run_python(code) == ["1"]
