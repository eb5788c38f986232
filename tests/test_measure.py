"""measure.py against PyTorch's own counters, counted multiplications, array sizes and np.polyfit."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import attn_guide as ag
from attn_guide import measure

sizes = st.integers(1, 40)


# ----------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize(
    ("n", "m", "h", "h_kv", "d_k", "d_v"), [(5, 5, 4, 4, 8, 8), (7, 9, 6, 2, 4, 3), (1, 30, 4, 1, 8, 8)]
)
def test_flops_are_what_torch_counts(n, m, h, h_kv, d_k, d_v):
    """The same products, run under PyTorch's FLOP counter."""
    d_model = 24
    x, context = torch.randn(n, d_model), torch.randn(m, d_model)
    w_q, w_k, w_v, w_o = (torch.randn(d_model, w) for w in (h * d_k, h_kv * d_k, h_kv * d_v, h * d_v))
    w_o = w_o.T
    parts = {}
    with FlopCounterMode(display=False) as counter:
        q, k, v = x @ w_q, context @ w_k, context @ w_v
    parts["projections"] = counter.get_total_flops()
    q = q.view(n, h, d_k).transpose(0, 1)
    k, v = (y.view(m, h_kv, -1).transpose(0, 1).repeat_interleave(h // h_kv, 0) for y in (k, v))
    with FlopCounterMode(display=False) as counter:
        s = torch.bmm(q, k.mT)
    parts["scores"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        o = torch.bmm(torch.softmax(s, -1), v)
    parts["weighted_sum"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        o.transpose(0, 1).reshape(n, h * d_v) @ w_o
    parts["projections"] += counter.get_total_flops()
    cost = ag.attention_flops(n, d_model, m=m, num_heads=h, num_kv_heads=h_kv, d_k=d_k, d_v=d_v)
    for name, flops in parts.items():
        assert 2 * getattr(cost, name) == flops
    assert cost.flops == sum(parts.values()) == 2 * cost.macs
    assert cost.exponentials == s.numel()


@settings(deadline=None)
@given(sizes, sizes, st.sampled_from([1, 2, 4]), sizes)
def test_flops_do_not_depend_on_the_number_of_heads(n, m, h, width):
    d_model = 4 * width
    one, many = (ag.attention_flops(n, d_model, m=m, num_heads=x) for x in (1, h))
    assert one.macs == many.macs
    assert many.exponentials == h * one.exponentials
    assert ag.mha_param_count(d_model, 1) == ag.mha_param_count(d_model, h)


@settings(deadline=None)
@given(st.integers(1, 300))
def test_the_crossovers(d):
    """The quadratic part overtakes the projections at n = 2d, the feed-forward layer at 4d, both at 6d."""
    for n, rest in (
        (2 * d, lambda n: ag.attention_flops(n, d).projections),
        (4 * d, lambda n: ag.feed_forward_flops(n, d).macs),
        (6 * d, lambda n: ag.attention_flops(n, d).projections + ag.feed_forward_flops(n, d).macs),
    ):
        assert ag.attention_flops(n, d).quadratic == rest(n)
        assert ag.attention_flops(n - 1, d).quadratic < rest(n - 1)
        assert ag.attention_flops(n + 1, d).quadratic > rest(n + 1)


def test_pairs_are_those_of_a_mask():
    n = 50
    visible = np.tril(np.ones((n, n), bool))
    causal = ag.attention_flops(n, 32, num_heads=4, pairs=int(visible.sum()))
    full = ag.attention_flops(n, 32, num_heads=4)
    assert causal.scores * n * n == full.scores * n * (n + 1) // 2
    assert causal.projections == full.projections
    assert causal.exponentials == 4 * n * (n + 1) // 2


@pytest.mark.parametrize("gated", [False, True])
def test_feed_forward_flops_are_what_torch_counts(gated):
    n, d, d_ff = 7, 12, 40
    x, w, w_down = torch.randn(n, d), torch.randn(d, d_ff), torch.randn(d_ff, d)
    with FlopCounterMode(display=False) as counter:
        hidden = torch.relu(x @ w) * (x @ w if gated else 1)
        hidden @ w_down
    cost = ag.feed_forward_flops(n, d, d_ff, gated=gated)
    assert cost.flops == counter.get_total_flops()
    assert cost.activations == hidden.numel()
    assert ag.feed_forward_flops(n, d) == ag.feed_forward_flops(n, d, 4 * d)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("d_model", "h"), [(12, 3), (768, 12)])
def test_parameters_are_torchs(bias, d_model, h):
    module = torch.nn.MultiheadAttention(d_model, h, bias=bias)
    assert ag.mha_param_count(d_model, h, bias=bias) == sum(p.numel() for p in module.parameters())
    block = torch.nn.TransformerEncoderLayer(d_model, h, 3 * d_model, bias=bias)
    linear = sum(p.numel() for layer in (block.linear1, block.linear2) for p in layer.parameters())
    assert ag.feed_forward_param_count(d_model, 3 * d_model, bias=bias) == linear


@pytest.mark.parametrize("h_kv", [1, 2, 6])
def test_parameters_of_grouped_heads_are_those_of_the_arrays(h_kv):
    params = ag.init_multi_head(24, 6, num_kv_heads=h_kv, d_k=5, d_v=3, rng=np.random.default_rng(0))
    assert ag.mha_param_count(24, 6, num_kv_heads=h_kv, d_k=5, d_v=3) == params.count()


def test_gated_parameters():
    assert ag.feed_forward_param_count(4096, 11008, gated=True, bias=False) == 3 * 4096 * 11008  # Llama 2 7B
    assert ag.feed_forward_param_count(3, 5, gated=True) == 3 * 3 * 5 + 2 * 5 + 3


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_bytes_are_those_of_the_arrays(dtype):
    b, h, h_kv, n, m, d_k, d_v = 2, 6, 3, 5, 7, 4, 8
    arrays = {
        "query": (b, h, n, d_k),
        "key": (b, h_kv, m, d_k),
        "value": (b, h_kv, m, d_v),
        "output": (b, h, n, d_v),
        "scores": (b, h, n, m),
    }
    cost = ag.attention_bytes(n, d_k, m=m, num_heads=h, num_kv_heads=h_kv, d_v=d_v, batch=b, dtype=dtype)
    want = {name: np.zeros(shape, dtype).nbytes for name, shape in arrays.items()}
    assert {name: getattr(cost, name) for name in arrays} == want
    assert cost.linear == sum(want.values()) - want["scores"]
    assert cost.total == sum(want.values())


def test_the_quadratic_wall():
    """float16, one head, one sequence: 32 KiB at 128 tokens, 2 GiB at 32,768."""
    scores = {n: ag.attention_bytes(n, 64).scores for n in (128, 32_768, 131_072)}
    assert scores == {128: 32 * 2**10, 32_768: 2 * 2**30, 131_072: 32 * 2**30}
    assert ag.attention_bytes(64, 64, dtype="bfloat16") == ag.attention_bytes(64, 64)
    assert ag.attention_bytes(64, 64, dtype="int8").total * 2 == ag.attention_bytes(64, 64).total


# ---------------------------------------------------------------------------------------------- measuring


def test_peak_memory_sees_what_was_freed_again():
    def function():
        a = np.ones(1_000_000)
        del a
        return np.ones(10)

    assert 8_000_000 <= ag.peak_memory(function) < 8_100_000
    assert ag.peak_memory(lambda: None) < 10_000


def test_peak_memory_does_not_count_what_was_there():
    before = np.ones(1_000_000)
    assert ag.peak_memory(lambda: before.sum()) < 100_000
    peak = ag.peak_memory(lambda: before + 1)
    assert 8_000_000 <= peak < 8_100_000


def test_peak_memory_leaves_tracing_as_it_was():
    assert not tracemalloc.is_tracing()
    ag.peak_memory(lambda: None)
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        keep = np.ones(2_000_000)
        assert ag.peak_memory(lambda: np.ones(1_000_000)) < 8_100_000
        assert tracemalloc.is_tracing()
        del keep
    finally:
        tracemalloc.stop()
    with pytest.raises(ZeroDivisionError):
        ag.peak_memory(lambda: 1 / 0)
    assert not tracemalloc.is_tracing()


def test_peak_memory_of_attention_follows_the_count():
    n = 512
    q = np.ones((n, 64), np.float32)
    peak = ag.peak_memory(lambda: ag.scaled_dot_product_attention(q, q, q, return_weights=True))
    cost = ag.attention_bytes(n, 64, dtype="float32")
    assert cost.scores <= peak < 3 * cost.scores


@settings(deadline=None)
@given(st.floats(-2, 4), st.floats(0.01, 100))
def test_a_power_law_is_found(exponent, coefficient):
    x = np.array([3, 5, 9, 20, 70])
    fit = ag.fit_exponent(x, coefficient * x**exponent)
    assert abs(fit.exponent - exponent) < 1e-9
    assert abs(fit.coefficient / coefficient - 1) < 1e-8
    assert fit.standard_error < 1e-8


def test_the_fit_is_polyfits():
    rng = np.random.default_rng(0)
    x = np.array([128, 256, 512, 1024, 2048, 4096])
    y = 3e-6 * x**1.7 * np.exp(0.1 * rng.standard_normal(6))
    (slope, level), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    fit = ag.fit_exponent(x, y)
    np.testing.assert_allclose(fit, [slope, np.sqrt(covariance[0, 0]), np.exp(level)], rtol=1e-10)


def test_the_standard_error_is_honest():
    """Over many noisy fits the exponents scatter by as much as the standard error says."""
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(4, 16)
    fits = [ag.fit_exponent(x, x**2 * np.exp(0.2 * rng.standard_normal(12))) for _ in range(2000)]
    exponents, errors = np.array([f[:2] for f in fits]).T
    assert abs(exponents.mean() - 2) < 5 * exponents.std() / np.sqrt(len(fits))
    np.testing.assert_allclose(np.sqrt((errors**2).mean()), exponents.std(), rtol=0.08)


# ------------------------------------------------------------------------------------------- named errors

BAD = {
    "n": (ValueError, "n is -1", lambda: ag.attention_flops(-1, 8)),
    "n type": (TypeError, "n is", lambda: ag.attention_flops(1.5, 8)),
    "d_model": (ValueError, "d_model", lambda: ag.attention_flops(1, 0)),
    "heads": (ValueError, "num_heads is 3", lambda: ag.attention_flops(1, 8, num_heads=3)),
    "kv heads": (ValueError, "num_kv_heads is 3", lambda: ag.attention_flops(1, 8, num_heads=4, num_kv_heads=3)),
    "d_k": (ValueError, "d_k", lambda: ag.attention_flops(1, 8, d_k=0)),
    "d_v": (ValueError, "d_v", lambda: ag.attention_flops(1, 8, d_v=0)),
    "m": (ValueError, "m is", lambda: ag.attention_flops(1, 8, m=-3)),
    "pairs": (ValueError, "pairs", lambda: ag.attention_flops(1, 8, pairs=-3)),
    "ffn n": (ValueError, "n is", lambda: ag.feed_forward_flops(-1, 8)),
    "ffn d_ff": (ValueError, "d_ff", lambda: ag.feed_forward_flops(1, 8, 0)),
    "bytes dtype": (ValueError, "dtype is 'float63'", lambda: ag.attention_bytes(1, 8, dtype="float63")),
    "bytes batch": (ValueError, "batch", lambda: ag.attention_bytes(1, 8, batch=-1)),
    "bytes d_k": (ValueError, "d_k", lambda: ag.attention_bytes(1, 0)),
    "bytes heads": (ValueError, "num_kv_heads", lambda: ag.attention_bytes(1, 8, num_heads=2, num_kv_heads=4)),
    "params heads": (ValueError, "num_heads", lambda: ag.mha_param_count(8, 3)),
    "params bool": (TypeError, "num_heads", lambda: ag.mha_param_count(8, True)),
    "ffn params": (ValueError, "d_model", lambda: ag.feed_forward_param_count(0)),
    "peak": (TypeError, "function", lambda: ag.peak_memory(np.ones(3))),
    "fit points": (ValueError, "x", lambda: ag.fit_exponent([1, 2], [1, 2])),
    "fit lengths": (ValueError, "y has 4", lambda: ag.fit_exponent([1, 2, 3], [1, 2, 3, 4])),
    "fit zero": (ValueError, "y holds", lambda: ag.fit_exponent([1, 2, 3], [1, 0, 3])),
    "fit NaN": (ValueError, "y holds", lambda: ag.fit_exponent([1, 2, 3], [1, np.nan, 3])),
    "fit one size": (ValueError, "x holds 2", lambda: ag.fit_exponent([2, 2, 2], [1, 2, 3])),
    "fit strings": (TypeError, "x", lambda: ag.fit_exponent(["a", "b", "c"], [1, 2, 3])),
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
    functions = [name for name in measure.__all__ if name.islower()]
    assert functions
    assert not [name for name in functions if f"ag.{name}(" not in text]
