"""
A zoo of causal masks
=====================

Nine masks that a decoder can have, and how many pairs each lets meet in a long sequence. Two of them let some tokens
see later ones, within a prefix and within a block.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, long = 12, 4096
masks = {
    "causal": (ag.causal, ag.causal),
    "window": (ag.causal & ag.sliding_window(3, 0), ag.causal & ag.sliding_window(255, 0)),
    "sinks + window": (
        ag.sinks(2) | ag.causal & ag.sliding_window(2, 0), ag.sinks(4) | ag.causal & ag.sliding_window(251, 0)
    ),
    "documents": (
        ag.causal & ag.document(np.repeat([0, 1, 2], [5, 3, 4])), ag.causal & ag.document(np.arange(long) // 512)
    ),
    "own block": (ag.causal & ag.block_local(4), ag.causal & ag.block_local(256)),
    "dilated": (ag.causal & ag.dilated_window(3, 0, 2), ag.causal & ag.dilated_window(255, 0, 2)),
    "strided": (ag.sparse_transformer_strided(4), ag.sparse_transformer_strided(64)),
    "prefix": (ag.prefix(5), ag.prefix(2048)),
    "block-causal": (ag.blockwise(ag.causal, 3), ag.blockwise(ag.causal, 64)),
}  # fmt: skip
share = {name: large.density(long) for name, (_, large) in masks.items()}

fig = plot.figure(
    "causal-zoo",
    title="From all of the past to a few keys of it: the pairs that nine masks keep",
    caption=(
        f"Drawn for {n} tokens with `ag.Mask.materialize`. Below each, the share of all pairs that it keeps at "
        f"{long:,} tokens (`density`): a window of 256 keys, four sinks with a window of 252, documents of 512, blocks "
        "of 256, 256 keys two apart, stride 64, a prefix of 2,048, and blocks of 64. In the last two some tokens see "
        "later ones, within the prefix and within a block."
    ),
    size=(6.4, 7.0),
)
plot.masks(
    fig.subplots(3, 3).flat,
    {name: small.materialize(n) for name, (small, _) in masks.items()},
    below={name: f"{kept:.1%} of pairs" for name, kept in share.items()},
)
plot.describe(
    fig,
    " ".join(
        f"{name.capitalize()}: {small.count(n)} of {n * n} pairs drawn, {share[name]:.1%} at {long:,} tokens. "
        f"{small.describe()}"
        for name, (small, _) in masks.items()
    ),
)
