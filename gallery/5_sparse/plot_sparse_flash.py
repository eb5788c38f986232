"""
The loop over tiles
===================

In which order FlashAttention makes the tiles of a row, and which it never makes, under three masks.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, tile = 512, 64
masks = {"no mask": ag.full, "causal": ag.causal, "window": ag.sliding_window(96, 96)}
order, share = {}, {}
for name, mask in masks.items():
    tiles = mask.materialize(n).reshape(n // tile, tile, n // tile, tile).any(axis=(1, 3))
    order[name] = (np.where(tiles, tiles.cumsum(axis=1), 0), tiles)
    share[name] = tiles.mean()

fig = plot.figure(
    "sparse-flash",
    title="One tile at a time: made, used and forgotten",
    caption=(
        f"{n} queries and keys in tiles of {tile} by {tile}. The number says when a tile is made in its row; a "
        "row keeps a "
        "maximum, a sum and a mixed value for each query, and nothing else. Hatched tiles hold no allowed pair "
        "(`ag.causal`, `ag.sliding_window(96, 96)`) and are never made."
    ),
    size=(6.4, 2.9),
)
for ax, (name, (a, tiles)) in zip(fig.subplots(1, 3), order.items(), strict=True):
    plot.matrix(
        ax,
        a.astype(float),
        kind="weights",
        mask=tiles,
        annotate=True,
        fmt=".0f",
        limits=(0, 16),
        name=name,
        ink=plot.MASK,
        below=f"{share[name]:.0%} of tiles",
    )
plot.describe(fig, " ".join(f"{name.capitalize()}: {a:.0%} of the tiles are made." for name, a in share.items()))
