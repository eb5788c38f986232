"""
Three variants of self-attention
================================

What differs is which pairs may meet. The masks that are drawn here are the ones the code computes with.
"""

import attn_guide as ag
from attn_guide import plot

n = 8
masks = {"bidirectional": ag.full, "causal": ag.causal, "window": ag.sliding_window(2, 2)}
pairs = {name: mask.count(n) for name, mask in masks.items()}
longest = {name: ag.path_lengths(mask, n).longest for name, mask in masks.items()}

fig = plot.figure(
    "self-variants",
    title="Bidirectional, causal, sparse: the same formula on fewer pairs",
    caption=(
        f"`ag.full`, `ag.causal` and `ag.sliding_window(2, 2)` for n = {n}: which query (row) may attend to which key "
        "(column). Hatched pairs are forbidden."
    ),
    size=(4.8, 2.7),
)
plot.masks(
    fig.subplots(1, 3),
    {name: mask.materialize(n) for name, mask in masks.items()},
    below={name: f"{count} pairs" for name, count in pairs.items()},
)
plot.describe(
    fig,
    " ".join(
        f"{name.capitalize()}: {pairs[name]} of {n * n} pairs allowed, longest path {longest[name]}." for name in masks
    ),
)
