"""
A stride alone, and a stride with a window
==========================================

Which inputs reach which outputs, after one layer and after many.
"""

import attn_guide as ag
from attn_guide import plot

n, stride = 20, 4
both = ag.sparse_transformer_strided(stride)
panels = {
    "stride 4, 1 layer": ag.reachability(ag.strided(stride), n, 1),
    "stride 4, 50 layers": ag.reachability(ag.strided(stride), n, 50),
    "with a window, 1 layer": ag.reachability(both, n, 1),
    "with a window, 2 layers": ag.reachability(both, n, 2),
}

fig = plot.figure(
    "sparse-strided",
    title="A stride alone never mixes; with a window it reaches the whole past in two layers",
    caption=(
        f"`ag.reachability` at {n} tokens. Above: `ag.strided({stride})`. Below: "
        f"`ag.sparse_transformer_strided({stride})`, "
        "a causal pattern that joins the stride with the last few keys."
    ),
    size=(6.4, 6.6),
)
plot.masks(fig.subplots(2, 2).flat, panels)
plot.describe(fig, " ".join(f"{name}: {a.mean():.0%} of all pairs are connected." for name, a in panels.items()))
