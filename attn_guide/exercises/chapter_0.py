"""Checkers for the exercises of chapter 0, important concepts."""

from __future__ import annotations

import math

import numpy as np

import attn_guide as ag

from . import Answer, exercise

__all__: list[str] = []


@exercise(
    "0.1",
    name="score_divisor",
    signature="(sd_q, sd_k, d_k)",
    statement="""
    The components of queries have the standard deviation sd_q and those of keys sd_k, all independent and with mean 0.
    Return the number by which scores of width d_k are divided so that their variance is 1.
    """,
    wrong={
        "keeps the divisor of standard deviation 1": "def score_divisor(sd_q, sd_k, d_k): return np.sqrt(d_k)",
        "divides by the variance, not its root": "def score_divisor(sd_q, sd_k, d_k): return sd_q**2 * sd_k**2 * d_k",
        "adds the variances of the factors": """
def score_divisor(sd_q, sd_k, d_k): return np.sqrt((sd_q**2 + sd_k**2) * d_k)
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for sd_q, sd_k, d_k in [
        (1.0, 1.0, 4),
        (2.0, 3.0, 64),
        *zip(*rng.uniform(0.1, 4, (2, 4)), (1, 2, 7, 30), strict=True),
    ]:
        # Components of +-sd: a product is +-(sd_q sd_k), and a score with k positive ones is (2k - d) times that.
        scores = sd_q * sd_k * (2 * np.arange(d_k + 1) - d_k)
        chances = np.array([math.comb(d_k, k) / 2**d_k for k in range(d_k + 1)])
        answer(float(sd_q), float(sd_k), d_k).equals(float(np.sqrt(chances @ scores**2)))


@exercise(
    "0.2",
    name="score_bias",
    signature="(k, c)",
    statement="""
    A model adds a bias b (d_k,) to all its keys and a bias c (d_k,) to all its queries. Return a vector (m,) that gives
    the same attention weights when it is added to every row of the scores of q (n, d_k) and k (m, d_k) without biases.
    It must serve for every q and every b, and it does not need to know them.
    """,
    wrong={
        "takes the bias for one that changes nothing": "def score_bias(k, c): return np.zeros(len(k))",
        "forgets that scores are scaled": "def score_bias(k, c): return k @ c",
        "scales by d_k, not by its root": "def score_bias(k, c): return k @ c / len(c)",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, m, d in [(3, 4, 2), (2, 5, 3), (4, 3, 6)]:
        q, k, b, c = (rng.standard_normal(shape) for shape in ((n, d), (m, d), d, d))
        given = answer(k, c)
        scores = q @ k.T / np.sqrt(d) + given.array((m,))
        biased = (q + c) @ (k + b).T / np.sqrt(d)
        error = np.abs(_softmax(scores) - _softmax(biased)).max()
        given.holds(error < 1e-9, f"for a drawn q and b, a weight is wrong by {error:.3g}")


@exercise(
    "0.3",
    name="temperature_for",
    signature="(scores, weight)",
    statement="""
    Return the temperature at which the largest of some scores gets the given weight under the softmax. One score is
    larger than the others, and the weight lies between 1 / len(scores) and 1.
    """,
    wrong={
        "counts the two largest scores only": """
def temperature_for(scores, weight):
    second, first = np.sort(scores)[-2:]
    return (first - second) / np.log(weight / (1 - weight))
""",
        "finds the factor on the scores, not what divides them": """
def temperature_for(scores, weight):
    low, high = 1e-6, 1e6
    for _ in range(200):
        c = np.sqrt(low * high)
        low, high = (c, high) if ag.softmax(c * np.asarray(scores)).max() < weight else (low, c)
    return c
""",
        "stops the search too early": """
def temperature_for(scores, weight):
    low, high = 0.01, 10.0
    for _ in range(12):
        tau = (low + high) / 2
        low, high = (tau, high) if ag.softmax(scores, temperature=tau).max() > weight else (low, tau)
    return tau
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for size, wanted in [(2, 0.9), (3, 0.9), (5, 0.3), (8, 0.99), (4, 0.5)]:
        scores = rng.standard_normal(size) * 2
        scores[rng.integers(size)] = scores.max() + 1
        given = answer(scores, wanted)
        tau = given.number()
        given.holds(tau > 0, "a temperature is above 0")
        weight = _softmax(scores / tau).max()
        given.holds(
            abs(weight - wanted) < 1e-6, f"at this temperature the largest weight is {weight:.6f}, not {wanted}"
        )


@exercise(
    "0.4",
    name="shuffled_output",
    signature="(output, query_order, pair_order)",
    statement="""
    Attention gave output (n, d_v) for n queries and m keys with their values. Then the queries are shuffled to
    q[query_order], and the keys together with their values to k[pair_order] and v[pair_order]. Return the new output.
    """,
    wrong={
        "moves the output with the keys": """
def shuffled_output(output, query_order, pair_order): return output[pair_order]
""",
        "leaves the output as it was": "def shuffled_output(output, query_order, pair_order): return output",
        "undoes the order instead of following it": """
def shuffled_output(output, query_order, pair_order): return output[np.argsort(query_order)]
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for n, m in [(4, 4), (3, 5), (6, 2)]:
        q, k, v = (rng.standard_normal(shape) for shape in ((n, 3), (m, 3), (m, 2)))
        rows = np.roll(np.arange(n), 1) if n < 6 else rng.permutation(n)
        pairs = rng.permutation(m)
        before = ag.scaled_dot_product_attention(q, k, v)
        answer(before, rows, pairs).equals(ag.scaled_dot_product_attention(q[rows], k[pairs], v[pairs]))


@exercise(
    "0.5",
    name="half_distance",
    signature="(slope)",
    statement="""
    A head of ALiBi has this slope, and its contents tie. Return the distance, not rounded, at which the weight of a key
    is half of that of a key at distance 0.
    """,
    wrong={
        "takes the distance at which the weight has fallen by e": "def half_distance(slope): return 1 / slope",
        "halves the score, not the weight": "def half_distance(slope): return 0.5 / slope",
        "rounds to a whole token": "def half_distance(slope): return round(np.log(2) / slope)",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for heads in (1, 4, 8):
        for slope, bias in zip(ag.alibi_slopes(heads), ag.alibi_bias(heads, 600), strict=True):
            weights = _softmax(bias[-1])[::-1]  # by distance
            # The logarithm of a weight is linear in the distance, so two points give it everywhere.
            answer(float(slope)).equals(float(np.log(2) / np.log(weights[0] / weights[1])), tolerance=1e-9)


@exercise(
    "0.6",
    name="break_even_length",
    signature="(d_model, d_ff, gated)",
    statement="""
    Return the length at which the n x n part of attention (scores and the sum of values), d_model wide, costs as many
    multiply-adds as a feed-forward layer of width d_ff on the same tokens. The layer has two matrices, or three if
    gated is True.
    """,
    wrong={
        "counts two matrices for both": "def break_even_length(d_model, d_ff, gated): return d_ff",
        "takes d_ff for four times d_model": "def break_even_length(d_model, d_ff, gated): return 4 * d_model",
        "counts the scores only": """
def break_even_length(d_model, d_ff, gated): return (3 if gated else 2) * d_ff
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for d_model, d_ff, gated in [
        (768, 3072, False),
        (768, 2048, True),
        *((int(rng.integers(8, 100)), 2 * int(rng.integers(8, 200)), bool(g)) for g in (0, 1, 1, 0)),
    ]:
        feed_forward = ag.feed_forward_flops(1, d_model, d_ff, gated=gated).macs  # grows with n
        pairs = ag.attention_flops(1, d_model).quadratic  # grows with n^2
        answer(d_model, d_ff, gated).equals(feed_forward / pairs)


@exercise(
    "0.7",
    name="head_share",
    signature="(x, weights, w_v, w_o, head)",
    statement="""
    Return what one head adds to the output (n, d_model) of a layer without biases. Given are its input x (n, d_model),
    the weights of all heads (h, n, n), and w_v (d_model, h d_v) and w_o (h d_v, d_model); head counts from 0.
    """,
    wrong={
        "lets the heads take turns in the columns": """
def head_share(x, weights, w_v, w_o, head):
    h = len(weights)
    return weights[head] @ x @ w_v[:, head::h] @ w_o[head::h]
""",
        "forgets the weights": """
def head_share(x, weights, w_v, w_o, head):
    d = len(w_o) // len(weights)
    return x @ w_v[:, head * d : (head + 1) * d] @ w_o[head * d : (head + 1) * d]
""",
        "takes an equal part of the output": """
def head_share(x, weights, w_v, w_o, head):
    h, n, _ = weights.shape
    heads = weights @ np.transpose((x @ w_v).reshape(n, h, -1), (1, 0, 2))
    return np.hstack(list(heads)) @ w_o / h
""",
    },
)
def _(answer: Answer, rng: np.random.Generator) -> None:
    for h, d, n in [(2, 2, 3), (3, 2, 4), (4, 1, 2)]:
        layer = ag.init_multi_head(h * d + 1, h, d_k=2, d_v=d, bias=False, rng=rng)
        x = rng.standard_normal((n, h * d + 1))
        full, weights = ag.multi_head_attention(x, x, x, layer, return_weights=True)
        for head in range(h):
            without = ag.multi_head_attention(x, x, x, layer, head_mask=[float(i != head) for i in range(h)])
            answer(x, weights, layer.w_v, layer.w_o, head).equals(full - without)


def _softmax(scores: np.ndarray) -> np.ndarray:
    """By its definition, along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
