"""
How far a window reaches
========================

Boolean powers of a window's mask: after L layers, which inputs can have influenced which output.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, depth = 20, 4
window = ag.sliding_window(1, 1)
middle = n // 2
reached = {layers: ag.reachability(window, n, layers) for layers in range(1, depth + 1)}

fig = plot.figure(
    "sparse-reach",
    title="Each layer of a window of 3 adds 2 tokens, one at each end",
    caption=(
        "`ag.reachability(ag.sliding_window(1, 1), 20, layers)`: entry (i, j) is filled if output i depends on "
        "input j. "
        "Outlined: the row of one token in the middle, with the number of inputs it depends on above."
    ),
    size=(6.4, 6.6),
)
for ax, (layers, a) in zip(fig.subplots(2, 2).flat, reached.items(), strict=True):
    plural = "layer" if layers == 1 else "layers"
    plot.matrix(
        ax, a, kind="mask", name=f"{layers} {plural}: {a[middle].sum()} tokens", ink=plot.MASK,
        outline=[(middle, int(j)) for j in np.flatnonzero(a[middle])],
    )  # fmt: skip
plot.describe(
    fig,
    " ".join(
        f"After {layers} layer(s) output {middle} depends on {a[middle].sum()} of {n} inputs."
        for layers, a in reached.items()
    ),
)
