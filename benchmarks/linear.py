"""Linear attention and the delta rule: growth of time and memory."""

from __future__ import annotations

import numpy as np

import attn_guide as ag

from .common import Row, memory_exponent, random_arrays, time_exponent


def full(q, k, v):
    return ag.linear_attention(q, k, v)


def chunked(q, k, v):
    return ag.linear_attention(q, k, v, is_causal=True, form="chunked")


def recurrent(q, k, v):
    return ag.linear_attention(q, k, v, is_causal=True, form="recurrent")


def performer(q, k, v):
    projection = ag.random_feature_projection(q.shape[-1], 128, rng=np.random.default_rng(0))
    return ag.performer_attention(q, k, v, projection)


def delta_rule(q, k, v):
    return ag.delta_rule_attention(q, k / 8, v, np.float32(0.5), form="chunked")


def run(quick: bool) -> list[Row]:
    rows = []
    sizes = [512, 1024, 2048] if quick else [1024, 2048, 4096, 8192]
    for name, function in (
        ("no mask, parallel", full),
        ("causal, chunked", chunked),
        ("causal, recurrent", recurrent),
        ("performer, 128 features", performer),
        ("delta rule, chunked", delta_rule),
    ):

        def make(n, function=function):
            arrays = random_arrays(n)
            return lambda: function(*arrays)

        label = f"{name}, n = {sizes[0]} ... {sizes[-1]}"
        rows.append(time_exponent("linear", label, sizes, make, rounds=2 if quick else 3, target=1.1))
        rows.append(memory_exponent("linear", label, sizes, make, target=1.1))
    return rows
