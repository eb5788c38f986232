"""positions.py against the papers' formulas, HuggingFace's models and ONNX's published cases."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_cases import Case, cases
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXConfig, GPTNeoXRotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_rope
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj_rope
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_rope
from transformers.models.t5.modeling_t5 import T5Attention, T5Config

import attn_guide as ag
from attn_guide import positions

T = torch.tensor
F64 = {"rtol": 1e-12, "atol": 1e-13}


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


# ---------------------------------------------------------------------------------- added to the tokens


@pytest.mark.parametrize("d_model", [2, 4, 10])
@pytest.mark.parametrize("base", [10000.0, 100.0])
def test_sinusoidal_positions_are_the_papers(d_model, base):
    want = np.array(
        [
            [(math.cos if c % 2 else math.sin)(t / base ** ((c - c % 2) / d_model)) for c in range(d_model)]
            for t in range(20)
        ]
    )
    np.testing.assert_allclose(ag.sinusoidal_positions(20, d_model, base=base), want, **F64)


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_sinusoidal_dot_products_depend_on_the_distance(a, b, shift):
    p = ag.sinusoidal_positions([a, b, a + shift, b + shift], 16)
    np.testing.assert_allclose(p[0] @ p[1], p[2] @ p[3], atol=1e-10)
    np.testing.assert_allclose((p**2).sum(-1), 8.0)


def test_sinusoidal_positions_at_given_positions():
    table = ag.sinusoidal_positions(50, 8)
    np.testing.assert_array_equal(ag.sinusoidal_positions([[3, 40], [0, 3]], 8), table[[[3, 40], [0, 3]]])
    assert ag.sinusoidal_positions(0, 8).shape == (0, 8)
    np.testing.assert_allclose(ag.sinusoidal_positions([0.5], 2), [[math.sin(0.5), math.cos(0.5)]])


def test_learned_positions_are_torchs_embedding():
    embedding = torch.nn.Embedding(32, 6)
    table = embedding.weight.detach().numpy()
    at = np.array([[0, 31, 5], [2, 2, 2]])
    got = ag.learned_positions(table, at)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, embedding(T(at)).detach().numpy())
    np.testing.assert_array_equal(ag.learned_positions(table, 4), table[:4])
    drawn = ag.init_learned_positions(200, 100, rng=np.random.default_rng(0), std=0.5)
    assert drawn.shape == (200, 100)
    assert abs(drawn.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * drawn.size)


# -------------------------------------------------------------------------------------------------- RoPE


def test_rope_is_the_rotation_matrix_of_the_paper():
    """Equation 15 as a block-diagonal matrix, multiplied out."""
    d, x = 6, normal(4, 6)
    for t, row in enumerate(x):
        matrix = np.zeros((d, d))
        for i in range(d // 2):
            c, s = math.cos(t * 10000 ** (-2 * i / d)), math.sin(t * 10000 ** (-2 * i / d))
            matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
        np.testing.assert_allclose(ag.apply_rope(x, interleaved=True)[t], matrix @ row, **F64)


def test_interleaved_and_half_split_are_the_same_up_to_the_order_of_components():
    x = normal(2, 5, 8)
    order = np.r_[0:8:2, 1:8:2]
    np.testing.assert_array_equal(ag.apply_rope(x[..., order]), ag.apply_rope(x, interleaved=True)[..., order])


@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("offset", [0, 17])
def test_rope_is_llamas(base, offset):
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=4, head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": base}
    )
    q, k = normal(2, 4, 6, 8), normal(2, 2, 6, 8, seed=1)
    ids = torch.arange(offset, offset + 6)[None].repeat(2, 1)
    cos, sin = LlamaRotaryEmbedding(config)(T(q).float(), ids)  # float32, as the model computes them
    for got, want in zip(
        (ag.apply_rope(x.astype(np.float32), offset, base=base) for x in (q, k)),
        llama_rope(T(q).float(), T(k).float(), cos, sin),
        strict=True,
    ):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-5)


def test_rope_is_llamas_in_float64():
    q, k = normal(2, 4, 6, 8), normal(2, 2, 6, 8, seed=1)
    cos, sin = (np.concatenate([table, table], -1)[None] for table in ag.rope_tables(6, 8))
    for got, want in zip((ag.apply_rope(x) for x in (q, k)), llama_rope(T(q), T(k), T(cos), T(sin)), strict=True):
        np.testing.assert_allclose(got, want.numpy(), **F64)


def test_partial_rope_is_gpt_neoxs():
    config = GPTNeoXConfig(
        hidden_size=32,
        num_attention_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    )
    q, k = normal(1, 2, 9, 16).astype(np.float32), normal(1, 2, 9, 16, seed=1).astype(np.float32)
    cos, sin = GPTNeoXRotaryEmbedding(config)(T(q), torch.arange(9)[None])
    assert cos.shape[-1] == 4
    for got, want in zip(
        (ag.apply_rope(x, rotary_dim=4) for x in (q, k)), neox_rope(T(q), T(k), cos, sin), strict=True
    ):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(got[..., 4:], want.numpy()[..., 4:])


def test_interleaved_rope_is_gptjs():
    x = normal(2, 7, 3, 8)  # GPT-J has (batch, length, heads, width)
    cos, sin = ag.rope_tables(7, 8)
    want = gptj_rope(T(x), T(sin)[None], T(cos)[None]).numpy()
    np.testing.assert_allclose(ag.apply_rope(x.swapaxes(1, 2), interleaved=True).swapaxes(1, 2), want, **F64)


@pytest.mark.parametrize("case", cases("rotaryembedding"), ids=lambda case: case.name.removeprefix("test_rotary_"))
def test_rope_is_onnxs(case: Case):
    a, x = case.attributes, case.inputs
    q, cos, sin = x["input"], x["cos_cache"], x["sin_cache"]
    if q.ndim == 3:
        q = ag.split_heads(q, a["num_heads"])
    ids = x.get("position_ids")
    if ids is None:  # the caches then hold a row for each token
        ids = np.arange(cos.shape[0] * cos.shape[1]).reshape(cos.shape[:2])
        cos, sin = (c.reshape(-1, c.shape[-1]) for c in (cos, sin))
    got = ag.apply_rope(
        q,
        ids[:, None],
        rotary_dim=a.get("rotary_embedding_dim") or None,
        interleaved=bool(a.get("interleaved")),
        tables=(cos, sin),
    )
    want = case.outputs["output"]
    np.testing.assert_allclose(ag.merge_heads(got) if want.ndim == 3 else got, want, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.booleans(),
    st.sampled_from([2, 4, 8]),
)
def test_rope_scores_depend_on_the_offset_only(i, j, shift, interleaved, rotary_dim):
    q, k = normal(1, 8), normal(1, 8, seed=1)
    options = {"interleaved": interleaved, "rotary_dim": rotary_dim}
    near = ag.apply_rope(q, i, **options) @ ag.apply_rope(k, j, **options).T
    far = ag.apply_rope(q, i + shift, **options) @ ag.apply_rope(k, j + shift, **options).T
    np.testing.assert_allclose(near, far, atol=1e-10)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_rope_keeps_lengths_and_is_undone_by_negative_positions(offset, interleaved):
    x = normal(3, 5, 8)
    at = offset + np.arange(5)
    y = ag.apply_rope(x, at, interleaved=interleaved)
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(ag.apply_rope(y, -at, interleaved=interleaved), x, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ag.apply_rope(x, offset, interleaved=interleaved), y)


def test_rope_gradient_is_the_inverse_rotation():
    x, g = normal(2, 5, 8), normal(2, 5, 8, seed=1)
    t = T(x, requires_grad=True)
    cos, sin = (T(np.concatenate([table, table], -1)) for table in ag.rope_tables(5, 8))
    (t * cos + torch.cat([-t[..., 4:], t[..., :4]], -1) * sin).backward(T(g))
    np.testing.assert_allclose(ag.apply_rope(g, -np.arange(5)), t.grad.numpy(), **F64)


def test_rope_tables_and_positions_broadcast():
    x = normal(2, 3, 5, 8)
    at = np.array([[0, 1, 2, 3, 4], [7, 9, 11, 0, 0]])
    got = ag.apply_rope(x, at[:, None])
    for b in range(2):
        for i in range(5):
            np.testing.assert_allclose(got[b, :, i], ag.apply_rope(x[b, :, i : i + 1], at[b, i])[:, 0], **F64)
    np.testing.assert_allclose(ag.apply_rope(x, at[:, None], tables=ag.rope_tables(12, 8)), got, **F64)
    halved = ag.apply_rope(x, np.arange(5) / 2)
    np.testing.assert_allclose(halved[..., ::2, :], ag.apply_rope(x[..., ::2, :]), **F64)
    before = x.copy()
    ag.apply_rope(x)
    np.testing.assert_array_equal(x, before)


def test_half_precision_rope_is_rotated_in_float32():
    x = normal(4, 1000, 64).astype(np.float16)
    got = ag.apply_rope(x)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, ag.apply_rope(x.astype(np.float32)).astype(np.float16))


# ------------------------------------------------------------------------------------------------- ALiBi


@pytest.mark.parametrize("h", range(1, 41))
def test_alibi_slopes_are_blooms(h):
    want = build_alibi_tensor(torch.ones(1, 2), h, torch.float64)[:, 0, 1].numpy()  # key 1 has bias slope * 1
    # Bloom raises a base that Python computed in float64, but in float32
    np.testing.assert_allclose(ag.alibi_slopes(h), want, rtol=2e-6)


@pytest.mark.parametrize("h", range(1, 65))
def test_alibi_slopes_are_those_of_the_authors_recursion(h):
    def slopes(n):
        if math.log2(n).is_integer():
            start = 2 ** (-(2 ** -(math.log2(n) - 3)))
            return [start * start**i for i in range(n)]
        closest = 2 ** math.floor(math.log2(n))
        return slopes(closest) + slopes(2 * closest)[0::2][: n - closest]

    np.testing.assert_allclose(ag.alibi_slopes(h), slopes(h), rtol=1e-13)


def test_alibi_is_exact_for_eight_heads():
    np.testing.assert_array_equal(ag.alibi_slopes(8), [2.0**-i for i in range(1, 9)])


def test_alibi_bias_gives_blooms_weights():
    """Bloom adds slope * key position, which differs from slope * -distance by a constant in each row."""
    h, n = 6, 7
    q, k, v = normal(1, h, n, 4), normal(1, h, n, 4, seed=1), normal(1, h, n, 4, seed=2)
    theirs = build_alibi_tensor(torch.ones(1, n), h, torch.float64).numpy()[None]  # (1, h, 1, n)
    want = ag.scaled_dot_product_attention(q, k, v, theirs, is_causal=True)
    got = ag.scaled_dot_product_attention(q, k, v, ag.alibi_bias(h, n), is_causal=True)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 6), st.integers(0, 9))
def test_alibi_bias_entry_by_entry(h, n, m, offset):
    bias = ag.alibi_bias(h, n, m, offset=offset)
    assert bias.shape == (h, n, m)
    for head, i, j in np.ndindex(bias.shape):
        assert bias[head, i, j] == -ag.alibi_slopes(h)[head] * abs(i + offset - j)


# ---------------------------------------------------------------------------------------------------- T5


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 64), (8, 20), (64, 1000), (4, 3), (6, 9)])
def test_t5_buckets_are_huggingfaces(bidirectional, num_buckets, max_distance):
    relative = np.arange(-3 * max_distance, 3 * max_distance + 1)
    want = T5Attention._relative_position_bucket(
        T(relative), bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    ).numpy()
    got = ag.t5_relative_bucket(
        relative, bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    )
    np.testing.assert_array_equal(got, want)
    assert got.min() >= 0
    assert got.max() < num_buckets


@pytest.mark.parametrize("is_decoder", [True, False])
def test_t5_bias_is_huggingfaces(is_decoder):
    config = T5Config(d_model=32, num_heads=4, d_kv=8, is_decoder=is_decoder)
    attention = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    want = attention.compute_bias(150, 150).detach().numpy()[0]
    table = attention.relative_attention_bias.weight.detach().numpy()
    got = ag.t5_relative_bias(table, 150, bidirectional=not is_decoder)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)
    last = ag.t5_relative_bias(table, 1, 150, offset=149, bidirectional=not is_decoder)
    np.testing.assert_array_equal(last, want[:, -1:])


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 300), st.booleans())
def test_t5_buckets_grow_with_the_distance(half, extra, bidirectional):
    max_distance = half + extra + 1
    distance = np.arange(4 * max_distance)
    bucket = ag.t5_relative_bucket(
        -distance, bidirectional=bidirectional, num_buckets=2 * half, max_distance=max_distance
    )
    assert (np.diff(bucket) >= 0).all()
    exact = half // 2 if bidirectional else half
    np.testing.assert_array_equal(bucket[:exact], distance[:exact])
    assert (bucket[max_distance:] == bucket[-1]).all()


# ---------------------------------------------------------------------- what a position does to attention


@pytest.mark.parametrize("scheme", ["none", "sinusoidal", "learned", "rope", "alibi", "t5"])
def test_every_scheme_breaks_permutation_equivariance(scheme):
    n, d = 6, 8
    x, order = normal(n, d), np.array([3, 0, 5, 1, 4, 2])
    table = normal(32, 1, seed=4)

    def attend(x):
        bias = None
        if scheme == "sinusoidal":
            x = x + ag.sinusoidal_positions(n, d)
        if scheme == "learned":
            x = x + ag.learned_positions(normal(10, d, seed=3), n)
        q, k = (ag.apply_rope(x), ag.apply_rope(x)) if scheme == "rope" else (x, x)
        if scheme == "alibi":
            bias = ag.alibi_bias(1, n)[0]
        if scheme == "t5":
            bias = ag.t5_relative_bias(table, n)[0]
        return ag.scaled_dot_product_attention(q, k, x, bias)

    moved, want = attend(x[order]), attend(x)[order]
    assert np.allclose(moved, want, rtol=1e-10) == (scheme == "none")


# ------------------------------------------------------------------------------------------- named errors

X = normal(2, 5, 8)
BAD = {
    "sinusoidal odd": (ValueError, "d_model", lambda: ag.sinusoidal_positions(3, 5)),
    "sinusoidal width": (ValueError, "d_model", lambda: ag.sinusoidal_positions(3, 0)),
    "sinusoidal width type": (TypeError, "d_model", lambda: ag.sinusoidal_positions(3, 4.0)),
    "sinusoidal count": (ValueError, "positions", lambda: ag.sinusoidal_positions(-1, 4)),
    "sinusoidal fraction": (TypeError, "positions", lambda: ag.sinusoidal_positions(2.5, 4)),
    "sinusoidal strings": (TypeError, "positions", lambda: ag.sinusoidal_positions(["a"], 4)),
    "sinusoidal base": (ValueError, "base", lambda: ag.sinusoidal_positions(3, 4, base=0)),
    "learned beyond": (ValueError, "positions runs from 0 to 3", lambda: ag.learned_positions(np.ones((3, 2)), 4)),
    "learned negative": (ValueError, "positions", lambda: ag.learned_positions(np.ones((3, 2)), [-1])),
    "learned fraction": (TypeError, "positions", lambda: ag.learned_positions(np.ones((3, 2)), [0.5])),
    "learned table": (ValueError, "table", lambda: ag.learned_positions(np.ones(3), 1)),
    "init length": (ValueError, "max_length", lambda: ag.init_learned_positions(0, 2, rng=np.random.default_rng(0))),
    "init rng": (TypeError, "rng", lambda: ag.init_learned_positions(2, 2, rng=None)),
    "init std": (ValueError, "std", lambda: ag.init_learned_positions(2, 2, rng=np.random.default_rng(0), std=0)),
    "tables odd": (ValueError, "d is 3", lambda: ag.rope_tables(4, 3)),
    "tables base": (ValueError, "base", lambda: ag.rope_tables(4, 4, base=-1)),
    "rope of a vector": (ValueError, "x", lambda: ag.apply_rope(X[0, 0])),
    "rope odd width": (ValueError, "width d of x", lambda: ag.apply_rope(X[..., :7])),
    "rope rotary_dim": (ValueError, "rotary_dim", lambda: ag.apply_rope(X, rotary_dim=10)),
    "rope rotary_dim odd": (ValueError, "rotary_dim", lambda: ag.apply_rope(X, rotary_dim=3)),
    "rope positions shape": (ValueError, "positions", lambda: ag.apply_rope(X, np.arange(4))),
    "rope positions type": (TypeError, "positions", lambda: ag.apply_rope(X, 1.5)),
    "rope negative offset": (ValueError, "positions", lambda: ag.apply_rope(X, -1)),
    "rope tables type": (TypeError, "tables", lambda: ag.apply_rope(X, tables=np.ones((2, 5, 4)))),
    "rope tables width": (ValueError, "tables", lambda: ag.apply_rope(X, tables=ag.rope_tables(9, 4))),
    "rope tables length": (ValueError, "positions", lambda: ag.apply_rope(X, tables=ag.rope_tables(4, 8))),
    "rope tables fraction": (
        TypeError,
        "positions",
        lambda: ag.apply_rope(X, np.arange(5) / 2, tables=ag.rope_tables(9, 8)),
    ),
    "slopes": (ValueError, "h is 0", lambda: ag.alibi_slopes(0)),
    "slopes type": (TypeError, "h is", lambda: ag.alibi_slopes(2.0)),
    "alibi n": (ValueError, "n is -1", lambda: ag.alibi_bias(2, -1)),
    "alibi offset": (ValueError, "offset", lambda: ag.alibi_bias(2, 3, offset=-1)),
    "bucket type": (TypeError, "relative_position", lambda: ag.t5_relative_bucket([0.5])),
    "bucket odd": (ValueError, "num_buckets", lambda: ag.t5_relative_bucket([1], num_buckets=7)),
    "bucket few": (ValueError, "num_buckets", lambda: ag.t5_relative_bucket([1], num_buckets=2)),
    "bucket distance": (ValueError, "max_distance", lambda: ag.t5_relative_bucket([1], max_distance=8)),
    "bias table": (ValueError, "table", lambda: ag.t5_relative_bias(np.ones(32), 3)),
    "bias m": (ValueError, "m is -2", lambda: ag.t5_relative_bias(np.ones((32, 1)), 3, -2)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_its_named_error(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.type is error
    assert "wanted" in str(caught.value)


def test_every_public_name_is_tested_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [name for name in positions.__all__ if f"ag.{name}(" not in text]
