"""The key/value cache against full recomputation, PyTorch's bottom-right causal mask and HuggingFace's caches."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attn_guide as ag

RTOL = 1e-12


def tensors(seed: int, length: int, *, h: int = 4, h_kv: int = 2, d_k: int = 6, d_v: int = 5, batch: tuple = (2,)):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(*batch, h, length, d_k)),
        rng.normal(size=(*batch, h_kv, length, d_k)),
        rng.normal(size=(*batch, h_kv, length, d_v)),
    )


def feed(cache: ag.KVCache, q, k, v, cuts: list[int], **options):
    """Give the cache the sequence in the pieces that ``cuts`` makes, and join what it answers."""
    edges = [0, *cuts, q.shape[-2]]
    return np.concatenate(
        [cache.attend(q[..., a:b, :], k[..., a:b, :], v[..., a:b, :], **options) for a, b in pairwise(edges)],
        axis=-2,
    )


@st.composite
def splits(draw):
    length = draw(st.integers(1, 24))
    return length, sorted(draw(st.sets(st.integers(1, max(1, length - 1)), max_size=length))) if length > 1 else []


@settings(max_examples=60, deadline=None)
@given(splits(), st.sampled_from([(4, 4), (4, 2), (4, 1), (1, 1)]), st.integers(1, 40), st.integers(0, 10**6))
def test_cache_equals_full_attention_however_the_sequence_is_split(split, heads, capacity, seed):
    length, cuts = split
    q, k, v = tensors(seed, length, h=heads[0], h_kv=heads[1])
    whole = ag.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    cache = ag.KVCache(capacity=capacity)
    np.testing.assert_allclose(feed(cache, q, k, v, cuts), whole, rtol=RTOL, atol=1e-14)
    np.testing.assert_array_equal(cache.key, k)
    np.testing.assert_array_equal(cache.value, v)
    assert len(cache) == length


@settings(max_examples=80, deadline=None)
@given(splits(), st.integers(1, 12), st.integers(0, 5), st.integers(0, 10**6))
def test_evicting_cache_equals_masked_attention_over_everything(split, window, sinks, seed):
    length, cuts = split
    q, k, v = tensors(seed, length)
    cache = ag.KVCache(window=window, sinks=sinks)
    mask = (ag.causal & ag.sliding_window(window - 1, 0)) | ag.sinks(sinks)
    np.testing.assert_array_equal(cache.mask.materialize(length), mask.materialize(length))
    whole = ag.scaled_dot_product_attention(q, k, v, mask_mod=mask, enable_gqa=True)
    np.testing.assert_allclose(feed(cache, q, k, v, cuts), whole, rtol=RTOL, atol=1e-14)
    kept = [p for p in range(length) if p < sinks or p >= length - window]
    np.testing.assert_array_equal(cache.positions, kept)
    np.testing.assert_array_equal(cache.key, k[..., kept, :])
    np.testing.assert_array_equal(cache.value, v[..., kept, :])


@pytest.mark.parametrize("options", [{}, {"window": 5}, {"window": 3, "sinks": 2}])
def test_weights_score_mods_and_masks_see_positions_of_the_whole_sequence(options):
    q, k, v = tensors(1, 17)
    ids = np.repeat([0, 1, 2], [5, 7, 5])

    def alibi(score, b, h, q_idx, kv_idx):
        return score - 0.25 * (h + 1) * (q_idx - kv_idx)

    cache = ag.KVCache(**options)
    extra = {"mask_mod": ag.document(ids), "score_mod": alibi, "softcap": 3.0, "scale": 0.3}
    whole, weights = ag.scaled_dot_product_attention(
        q,
        k,
        v,
        enable_gqa=True,
        return_weights=True,
        **{**extra, "mask_mod": cache.mask & ag.document(ids)},
    )
    edges = [0, 6, 7, 8, 12, 16, 17]
    for a, b in pairwise(edges):
        piece = (x[..., a:b, :] for x in (q, k, v))
        out, w = cache.attend(*piece, return_weights=True, **extra)
        np.testing.assert_allclose(out, whole[..., a:b, :], rtol=RTOL, atol=1e-14)
        np.testing.assert_allclose(w, weights[..., a:b, :b], rtol=RTOL, atol=1e-14)


def test_queries_align_bottom_right_as_torch_causal_lower_right():
    torch = pytest.importorskip("torch")
    from torch.nn.attention.bias import causal_lower_right

    q, k, v = tensors(2, 9, h=3, h_kv=3)
    cache = ag.KVCache()
    cache.append(k, v)
    ours = cache.attend(q[..., -4:, :])
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(x) for x in (q[..., -4:, :], k, v)), attn_mask=causal_lower_right(4, 9)
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=RTOL, atol=1e-14)


def rotate(x, positions):
    """RoPE on pairs (2i, 2i + 1), written as complex multiplication: independent of the package's own."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * 100.0 ** (-np.arange(half) / half)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


@pytest.mark.parametrize("options", [{}, {"window": 4}, {"window": 4, "sinks": 1}])
@pytest.mark.parametrize("cuts", [[1, 2, 3], [7], [5, 6, 12]])
def test_rotated_keys_are_stored_at_their_positions(options, cuts):
    q, k, v = tensors(3, 14)
    cache = ag.KVCache(rope=rotate, **options)
    at = np.arange(14)
    whole = ag.scaled_dot_product_attention(rotate(q, at), rotate(k, at), v, mask_mod=cache.mask, enable_gqa=True)
    np.testing.assert_allclose(feed(cache, q, k, v, cuts), whole, rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(cache.key, rotate(k, at)[..., cache.positions, :])


def test_source_cache_equals_cross_attention_and_is_read_only_per_step():
    rng = np.random.default_rng(4)
    q, k, v = rng.normal(size=(2, 6, 5, 8)), rng.normal(size=(2, 3, 7, 8)), rng.normal(size=(2, 3, 7, 4))
    source = ag.KVCache(is_causal=False)
    source.append(k, v)
    whole = ag.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    for t in range(5):
        np.testing.assert_allclose(source.attend(q[..., t : t + 1, :]), whole[..., t : t + 1, :], rtol=RTOL, atol=1e-14)
    np.testing.assert_allclose(source.attend(q), whole, rtol=RTOL, atol=1e-14)
    assert len(source) == 7


def test_window_bounds_memory_and_doubling_amortises_copies():
    ring = ag.KVCache(window=8, sinks=2)
    grown = ag.KVCache()
    reallocations = 0
    for t in range(600):
        k = np.full((1, 1, 4), float(t))
        before = grown._key
        ring.append(k, k)
        grown.append(k, k)
        reallocations += grown._key is not before
    assert ring._key.shape[-2] <= 16
    assert ring.nbytes == 10 * 4 * 8 * 2
    assert grown.nbytes == 600 * 4 * 8 * 2
    assert reallocations <= 8
    np.testing.assert_array_equal(ring.positions, [0, 1, *range(592, 600)])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_in_is_dtype_out_and_inputs_stay(dtype):
    q, k, v = (x.astype(dtype) for x in tensors(5, 6))
    copies = [x.copy() for x in (q, k, v)]
    cache = ag.KVCache(window=3)
    out = feed(cache, q, k, v, [2, 3])
    assert out.dtype == cache.key.dtype == cache.value.dtype == np.dtype(dtype)
    for x, copy in zip((q, k, v), copies, strict=True):
        np.testing.assert_array_equal(x, copy)
    k[:] = 0  # the cache holds its own copy
    assert np.abs(cache.key).min() > 0


def test_no_future_token_changes_an_earlier_answer():
    q, k, v = tensors(6, 10)
    one, two = ag.KVCache(window=4, sinks=1), ag.KVCache(window=4, sinks=1)
    changed = k.copy()
    changed[..., 6:, :] += 100.0
    a, b = feed(one, q, k, v, [3]), feed(two, q, changed, v, [3])
    np.testing.assert_array_equal(a[..., :6, :], b[..., :6, :])
    assert np.abs(a[..., 6:, :] - b[..., 6:, :]).min() > 0


def test_truncate_then_continue_equals_never_having_been_there():
    q, k, v = tensors(7, 12)
    cache = ag.KVCache(capacity=4)
    feed(cache, q[..., :9, :], k[..., :9, :], -v[..., :9, :], [4])
    cache.truncate(0)
    first = cache.attend(q[..., :5, :], k[..., :5, :], v[..., :5, :])
    cache.append(np.ones_like(k[..., :4, :]), np.ones_like(v[..., :4, :]))  # a rejected draft
    cache.truncate(5)
    rest = cache.attend(q[..., 5:, :], k[..., 5:, :], v[..., 5:, :])
    whole = ag.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=-2), whole, rtol=RTOL, atol=1e-14)


def test_reorder_copies_beams():
    q, k, v = tensors(8, 6, batch=(3,))
    cache = ag.KVCache()
    cache.append(k[..., :5, :], v[..., :5, :])
    cache.reorder([2, 0, 2, 1])
    pick = [2, 0, 2, 1]
    out = cache.attend(q[pick][..., 5:, :], k[pick][..., 5:, :], v[pick][..., 5:, :])
    whole = ag.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    np.testing.assert_allclose(out, whole[pick][..., 5:, :], rtol=RTOL, atol=1e-14)
    cache.reorder(np.array([], dtype=int))
    assert cache.key.shape[0] == 0


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"window": 3, "sinks": 2}])
@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_a_prompt_may_ask_for_its_last_rows_only(options, rows):
    q, k, v = tensors(10, 11)
    cache = ag.KVCache(**options)
    cache.append(k[..., :6, :], v[..., :6, :])
    out = cache.attend(q[..., 11 - rows :, :], k[..., 6:, :], v[..., 6:, :])
    whole = ag.scaled_dot_product_attention(q, k, v, mask_mod=cache.mask, enable_gqa=True)
    np.testing.assert_allclose(out, whole[..., 11 - rows :, :], rtol=RTOL, atol=1e-14)
    if rows <= 1:
        np.testing.assert_allclose(cache.attend(q[..., 11 - rows :, :]), out, rtol=RTOL, atol=1e-14)


def test_zero_tokens():
    q, k, v = tensors(9, 3)
    cache = ag.KVCache(window=2)
    empty = cache.attend(q[..., :0, :], k[..., :0, :], v[..., :0, :])
    assert empty.shape == (2, 4, 0, 5)
    assert len(cache) == 0
    whole = ag.scaled_dot_product_attention(q, k, v, mask_mod=ag.causal & ag.sliding_window(1, 0), enable_gqa=True)
    np.testing.assert_allclose(cache.attend(q, k, v), whole, rtol=RTOL, atol=1e-14)


# ------------------------------------------------------------------------------------------ HuggingFace


def huggingface(kind: str, **options):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=29,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=64,
        attn_implementation="eager",
        **options,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).double().eval()
    return torch, model


def half_split_rope(model):
    """Return HF's rotation as (x, positions) -> x, from the model's own inverse frequencies."""
    freq = model.rotary_emb.inv_freq.double().numpy()

    def rope(x, positions):
        angle = positions[:, None] * freq
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)

    return rope


@pytest.mark.parametrize("cuts", [[5, 6, 7, 8, 9, 10, 11], [1, 7], [9]])
@pytest.mark.parametrize(("kind", "window"), [("Llama", None), ("Mistral", 4), ("Mistral", 2)])
@pytest.mark.filterwarnings("ignore:.*past_key_values:FutureWarning")  # the name that older versions know too
def test_decoding_equals_huggingface_attention_with_its_own_cache(kind, window, cuts):
    options = {} if window is None else {"sliding_window": window}
    torch, model = huggingface(kind, **options)
    from transformers import DynamicCache

    layer = model.layers[0]
    seen = []
    layer.self_attn.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((kwargs["hidden_states"], out[0])), with_kwargs=True
    )
    tokens = torch.arange(12).reshape(1, 12) * 7 % 29
    theirs = DynamicCache(config=model.config)
    ours = ag.KVCache(window=window, rope=half_split_rope(model))
    edges = [0, *cuts, 12]
    w = {n: getattr(layer.self_attn, f"{n}_proj").weight.detach().numpy().T for n in "qkvo"}
    with torch.no_grad():
        for a, b in pairwise(edges):
            model(tokens[:, a:b], past_key_values=theirs, use_cache=True)
            x, expected = (t.numpy() for t in seen[-1])
            out = ours.attend(
                ag.split_heads(x @ w["q"], 4), ag.split_heads(x @ w["k"], 2), ag.split_heads(x @ w["v"], 2)
            )
            # HF keeps its tables of cosines in float32, which bounds the agreement.
            np.testing.assert_allclose(ag.merge_heads(out) @ w["o"], expected, rtol=1e-5, atol=1e-7)
    assert len(ours) == theirs.get_seq_length() == 12


# ------------------------------------------------------------------------------------------ bytes


def test_cache_bytes_of_published_models():
    kib, gib = 1024, 1024**3
    assert ag.kv_cache_bytes(80, 8, 128) == 320 * kib  # Llama 2 70B
    assert ag.kv_cache_bytes(80, 64, 128) == 2560 * kib  # the same with MHA
    assert ag.kv_cache_bytes(32, 8, 128) == 128 * kib  # Mistral 7B
    assert ag.kv_cache_bytes(32, 8, 128, n=32768, window=4096) == ag.kv_cache_bytes(32, 8, 128, n=4096)
    assert ag.kv_cache_bytes(96, 96, 128, n=2048) == 9 * gib  # GPT-3 175B
    assert ag.kv_cache_bytes(60, 1, 576, 0) == 69120  # DeepSeek-V2: 60 layers of 512 + 64
    assert ag.kv_cache_bytes(2, 3, 5, 7, n=11, dtype_bytes=4, batch=13) == 2 * 3 * 12 * 11 * 4 * 13


def test_bytes_formula_is_what_a_cache_holds():
    cache = ag.KVCache()
    cache.append(np.zeros((5, 3, 7, 4), np.float32), np.zeros((5, 3, 7, 6), np.float32))
    assert cache.nbytes == ag.kv_cache_bytes(1, 3, 4, 6, n=7, batch=5, dtype_bytes=4)
    assert ag.KVCache().nbytes == 0


# ------------------------------------------------------------------------------------------ bad input

ONE = np.ones((2, 1, 4))


def filled(**options) -> ag.KVCache:
    cache = ag.KVCache(**options)
    cache.append(np.ones((2, 5, 4)), np.ones((2, 5, 3)))
    return cache


BAD = [
    (lambda: ag.KVCache(window=0), ValueError, "window is 0; wanted an integer of at least 1"),
    (lambda: ag.KVCache(window=2.0), TypeError, "window is 2.0 of type float"),
    (lambda: ag.KVCache(sinks=1), ValueError, "sinks is 1 and window is None"),
    (lambda: ag.KVCache(window=2, sinks=-1), ValueError, "sinks is -1"),
    (lambda: ag.KVCache(window=2, is_causal=False), ValueError, "window and rope need is_causal=True"),
    (
        lambda: ag.KVCache(rope=lambda x, p: x, is_causal=False),
        ValueError,
        "window and rope need is_causal=True",
    ),
    (lambda: ag.KVCache(capacity=0), ValueError, "capacity is 0"),
    (lambda: ag.KVCache().attend(ONE), ValueError, "the cache is empty; wanted key and value"),
    (lambda: ag.KVCache().key, ValueError, "the cache is empty"),
    (lambda: ag.KVCache().attend(ONE, ONE), TypeError, "value is None; wanted key and value together"),
    (lambda: ag.KVCache().attend(ONE, None, ONE), TypeError, "key is None; wanted key and value together"),
    (lambda: filled().attend(np.ones((4, 1))), ValueError, "query has shape (4, 1); wanted (..., h, n, d_k)"),
    (lambda: filled().attend(np.ones((2, 6, 4))), ValueError, "query has 6 rows; wanted at most 5"),
    (
        lambda: filled().attend(np.ones((2, 2, 4)), ONE, ONE[..., :3]),
        ValueError,
        "query has 2 rows; wanted at most 1",
    ),
    (
        lambda: filled(window=3).attend(np.ones((2, 2, 4))),
        ValueError,
        "query has 2 rows, the first of which sees keys from 1 on, but a window of 3 kept those from 2 on",
    ),
    (lambda: filled().append(ONE, ONE), ValueError, "value has shape (2, 1, 4); wanted (2, t, 3) as in the cache"),
    (lambda: filled().append(np.ones((3, 1, 4)), np.ones((3, 1, 3))), ValueError, "key has shape (3, 1, 4)"),
    (lambda: filled().append(ONE, np.ones((2, 2, 3))), ValueError, "value has shape (2, 2, 3)"),
    (lambda: filled().append(np.ones(4), np.ones(4)), ValueError, "key has shape (4,); wanted (..., h_kv, t, d_k)"),
    (
        lambda: filled().append(ONE.astype("f4"), ONE[..., :3].astype("f4")),
        TypeError,
        "key has dtype float32; wanted the dtype in the cache, float64",
    ),
    (lambda: filled().attend(ONE, ONE * 1j, ONE), TypeError, "key has dtype complex128"),
    (lambda: filled().attend(np.ones((2, 1, 5))), ValueError, "key has width 4 (shape (2, 5, 4)); wanted the width"),
    (lambda: filled().attend(np.ones((3, 1, 4))), ValueError, "query has 3 heads and key 2"),
    (lambda: filled().truncate(6), ValueError, "length is 6; wanted at most the 5 tokens"),
    (lambda: filled(window=9).truncate(1), ValueError, "a cache with window 9 cannot be truncated"),
    (lambda: filled().reorder([0]), ValueError, "the cache has no batch dimension"),
    (lambda: ag.KVCache().reorder([0]), ValueError, "the cache has no batch dimension"),
    (lambda: ag.kv_cache_bytes(-1, 1, 1), ValueError, "layers is -1"),
    (lambda: ag.kv_cache_bytes(1, 1.5, 1), TypeError, "h_kv is 1.5"),
    (lambda: ag.kv_cache_bytes(1, 1, 1, window=-2), ValueError, "window is -2"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[row[2][:40] for row in BAD])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("indices", "message"),
    [([3], "indices holds 3 ... 3; wanted 0 ... 1"), ([0.5], "dtype float64"), ([[0]], "(1, 1)")],
)
def test_reorder_names_bad_indices(indices, message):
    cache = ag.KVCache()
    cache.append(np.ones((2, 1, 1, 4)), np.ones((2, 1, 1, 4)))
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.reorder(indices)


def test_a_refused_call_leaves_the_cache_as_it_was():
    cache = filled()
    with pytest.raises(ValueError, match="query has 2 rows"):
        cache.attend(np.ones((2, 2, 4)), ONE, ONE[..., :3])
    with pytest.raises(ValueError, match="width"):
        cache.attend(np.ones((2, 1, 5)), ONE, ONE[..., :3])
    assert len(cache) == 5
