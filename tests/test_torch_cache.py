"""The key/value cache on tensors: against the reference's cache, against whole sequences, and its fixed shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attn_guide as ag
import attn_guide.torch as at


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(n=13, h=4, h_kv=2):
    return draw(2, h, n, 6), draw(2, h_kv, n, 6, seed=1), draw(2, h_kv, n, 5, seed=2)


def rotate(x, positions):
    return at.apply_rope(x, positions)


KINDS = {
    "plain": {},
    "window": {"window": 4},
    "sinks": {"window": 3, "sinks": 2},
    "rope": {"rope": True},
    "rope and window": {"window": 5, "rope": True},
}


@pytest.mark.parametrize("steps", [[13], [1] * 13, [5, 1, 1, 4, 2], [2, 9, 2], [1, 12]])
@pytest.mark.parametrize("kind", KINDS)
def test_every_split_of_a_sequence_gives_what_the_references_cache_gives(kind, steps):
    q, k, v = tokens()
    options = dict(KINDS[kind])
    rope = options.pop("rope", False)
    ours = at.KVCache(2, 2, 13, 6, 5, dtype=torch.float64, rope=rotate if rope else None, **options)
    theirs = ag.KVCache(rope=ag.apply_rope if rope else None, **options)
    assert repr(ours.mask) == repr(theirs.mask)
    start, got = 0, []
    for t in steps:
        part = [x[:, :, start : start + t] for x in (q, k, v)]
        out, weights = ours.attend(*part, return_weights=True)
        expected, expected_weights = theirs.attend(*(x.numpy() for x in part), return_weights=True)
        np.testing.assert_allclose(out, expected, atol=1e-12)
        np.testing.assert_allclose(weights, expected_weights, atol=1e-12)
        got.append(out)
        start += t
    whole_q, whole_k = (rotate(q, None), rotate(k, None)) if rope else (q, k)
    whole = at.attention(whole_q, whole_k, v, mask_mod=ours.mask, enable_gqa=True, backend="explicit")
    np.testing.assert_allclose(torch.cat(got, dim=2), whole, atol=1e-12)
    assert len(ours) == len(theirs) == 13


def test_masks_scores_and_caps_are_in_positions_of_the_whole_sequence():
    q, k, v = tokens()
    options = {
        "mask_mod": lambda b, h, q_idx, kv_idx: (kv_idx + h) % 3 != 0,
        "score_mod": lambda s, b, h, q_idx, kv_idx: s * 1.0 + (kv_idx - q_idx) * (h + 1),
        "softcap": 2.0,
        "scale": 0.3,
    }
    ours, theirs = at.KVCache(2, 2, None, 6, 5, dtype=torch.float64, window=4), ag.KVCache(window=4)
    for part in ([x[:, :, :6] for x in (q, k, v)], *([x[:, :, t : t + 1] for x in (q, k, v)] for t in range(6, 13))):
        out = ours.attend(*part, **options)
        np.testing.assert_allclose(out, theirs.attend(*(x.numpy() for x in part), **options), atol=1e-12)


def test_cross_attention_stores_its_source_once():
    q, k, v = tokens()
    cache = at.KVCache(2, 2, 20, 6, 5, is_causal=False, dtype=torch.float64)
    cache.append(k, v)
    for t in range(3):
        one = q[:, :, t : t + 1]
        whole = at.attention(one, k, v, enable_gqa=True)
        assert torch.allclose(cache.attend(one), whole, atol=1e-12)


def test_nothing_changes_shape_from_step_to_step():
    q, k, v = (x.float() for x in tokens())
    cache = at.KVCache(2, 2, 16, 6, 5)
    shapes, seen = [], at.cache.scaled_dot_product_attention

    def watched(query, key, value, mask=None, **options):
        shapes.append((key.shape, value.shape, None if mask is None else mask.shape))
        return seen(query, key, value, mask, **options)

    at.cache.scaled_dot_product_attention, buffers = watched, (cache._key.data_ptr(), cache._value.data_ptr())
    try:
        for t in range(13):
            cache.attend(*(x[:, :, t : t + 1] for x in (q, k, v)))
    finally:
        at.cache.scaled_dot_product_attention = seen
    assert len(set(shapes[1:])) == 1
    assert buffers == (cache._key.data_ptr(), cache._value.data_ptr())


def test_truncating_and_reordering():
    q, k, v = tokens()
    cache = at.KVCache(2, 2, 13, 6, 5, dtype=torch.float64)
    cache.attend(q[:, :, :9], k[:, :, :9], v[:, :, :9])
    cache.truncate(5)
    out = cache.attend(q[:, :, 5:7], k[:, :, 5:7], v[:, :, 5:7])
    whole = at.attention(q[:, :, :7], k[:, :, :7], v[:, :, :7], is_causal=True, enable_gqa=True)
    assert torch.allclose(out, whole[:, :, 5:], atol=1e-12)
    cache.reorder(torch.tensor([1, 1]))
    again = cache.attend(q[:, :, 6:7])
    expected = at.attention(q[:, :, 6:7], k[[1, 1], :, :7], v[[1, 1], :, :7], enable_gqa=True)
    assert torch.allclose(again, expected, atol=1e-12)
    cache.truncate(0)
    assert torch.allclose(cache.attend(q, k, v), at.attention(q, k, v, is_causal=True, enable_gqa=True), atol=1e-12)


def test_bytes():
    cache = at.KVCache(2, 4, 100, 8, 8, dtype=torch.bfloat16)
    assert cache.nbytes == ag.kv_cache_bytes(1, 4, 8, n=100, batch=2, dtype_bytes=2)
    assert at.KVCache(2, 1, 100, 8, 6, value_in_key=True).nbytes == 2 * 100 * 8 * 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: at.KVCache(1, 1, None, 4), ValueError, "capacity is None"),
        (lambda: at.KVCache(1, 1, 4, 4, sinks=1), ValueError, "sinks is 1 and window is None"),
        (lambda: at.KVCache(1, 1, 4, 4, window=2, is_causal=False), ValueError, "need is_causal=True"),
        (lambda: at.KVCache(1, 1, 4, 4, 5, value_in_key=True), ValueError, "d_v is 5"),
        (
            lambda: at.KVCache(1, 1, 4, 4).append(torch.ones(1, 1, 5, 4), torch.ones(1, 1, 5, 4)),
            ValueError,
            "at most 4",
        ),
        (lambda: at.KVCache(1, 1, 4, 4).append(torch.ones(1, 1, 2, 4)), TypeError, "value is None"),
        (lambda: at.KVCache(1, 1, 4, 4).append(torch.ones(1, 2, 2, 4), torch.ones(1, 2, 2, 4)), ValueError, "key has"),
        (lambda: at.KVCache(1, 1, 4, 4).append(*[torch.ones(1, 1, 2, 4).half()] * 2), TypeError, "float16"),
        (lambda: at.KVCache(1, 1, 4, 4).attend(torch.ones(1, 1, 1, 4)), ValueError, "query has length 1"),
        (lambda: at.KVCache(1, 1, 4, 4).truncate(1), ValueError, "length is 1"),
        (lambda: at.KVCache(1, 1, 4, 4).reorder(torch.zeros(2).long()), ValueError, "indices has shape"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_window_does_not_give_back_what_it_evicted():
    cache = at.KVCache(1, 1, None, 4, window=2)
    cache.append(torch.ones(1, 1, 5, 4), torch.ones(1, 1, 5, 4))
    with pytest.raises(ValueError, match="evicted"):
        cache.attend(torch.ones(1, 1, 2, 4))
    with pytest.raises(ValueError, match="wanted 0"):
        cache.truncate(3)


@pytest.mark.slow
def test_decoding_compiles_once():
    q, k, v = (x.float() for x in tokens())
    cache = at.KVCache(2, 2, 16, 6, 5)
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    step = torch.compile(lambda q, k, v: cache.attend(q, k, v), fullgraph=True, backend=counting)
    out = [cache.attend(*(x[:, :, :4] for x in (q, k, v)))]
    out += [step(*(x[:, :, t : t + 1] for x in (q, k, v))) for t in range(4, 13)]
    whole = at.attention(q, k, v, is_causal=True, enable_gqa=True)
    assert torch.allclose(torch.cat(out, dim=2), whole, atol=1e-5)
    assert len(graphs) == 1
