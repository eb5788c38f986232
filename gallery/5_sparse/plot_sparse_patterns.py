"""
The pattern zoo
===============

Nine patterns, drawn from the predicates that the kernels compute with, and the share of pairs that each keeps in a long
sequence.
"""

from math import isqrt

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, long = 24, 4096
root = isqrt(long)


def bigbird(length, block):
    return ag.bigbird(length, block, random_blocks=1, rng=np.random.default_rng(1))


patterns = {
    "window": (ag.sliding_window(2, 2), ag.sliding_window(128, 128)),
    "dilated": (ag.dilated_window(2, 2, 3), ag.dilated_window(128, 128, 3)),
    "strided": (ag.strided(4), ag.strided(root)),
    "strided + window": (ag.sparse_transformer_strided(4), ag.sparse_transformer_strided(root)),
    "fixed": (ag.sparse_transformer_fixed(6, 1), ag.sparse_transformer_fixed(root, 8)),
    "global + window": (ag.longformer(4, [0, 12]), ag.longformer(256, [0, 12])),
    "random": (
        ag.random_keys(3, n, rng=np.random.default_rng(0)), ag.random_keys(192, long, rng=np.random.default_rng(0))
    ),
    "block": (ag.block_local(4), ag.block_local(256)),
    "BigBird": (bigbird(n, 2), bigbird(long, 64)),
}  # fmt: skip
share = {name: large.density(long) for name, (_, large) in patterns.items()}

fig = plot.figure(
    "sparse-zoo",
    title="Nine ways to leave pairs out",
    caption=(
        f"Drawn for {n} tokens with `ag.Mask.materialize`: row i is what query i sees. Below each, the share of "
        "pairs "
        f"that the same pattern keeps at {long:,} tokens (`density`): windows of 257 keys, the dilated one 3 apart, "
        f"stride and blocks of {root} with 8 summary cells, tokens 0 and 12 global, 192 random keys, own blocks "
        "of 256, "
        "BigBird with blocks of 64 and one random block."
    ),
    size=(6.4, 7.0),
)
plot.masks(
    fig.subplots(3, 3).flat,
    {name: small.materialize(n) for name, (small, _) in patterns.items()},
    below={name: f"{kept:.1%} of pairs" for name, kept in share.items()},
)
plot.describe(
    fig,
    " ".join(
        f"{name[0].upper() + name[1:]}: {small.count(n)} of {n * n} pairs drawn, {share[name]:.1%} at {long:,} tokens."
        for name, (small, _) in patterns.items()
    ),
)
