"""
The widths of a real layer, to scale
====================================

BERT-base has d_model = 768, cut into h = 12 heads of d_k = d_v = 64. The score matrix is the only part whose size
depends on the sequence alone.
"""

from attn_guide import plot

n, d_model, h = 512, 768, 12
d_k = d_model // h

fig = plot.figure(
    "concepts-dimensions",
    title=f"One of BERT-base’s {h} heads works in {d_k} of its {d_model} dimensions",
    caption=(
        f"All rectangles to one scale, for `n = {n}` tokens: `d_model = {d_model}`, `h = {h}`, "
        f"`d_k = d_v = {d_k}`. From the published configuration of BERT-base."
    ),
    size=(5.6, 6.0),
)
axes = fig.subplots(3, 1, height_ratios=[768, 512, 768])
plot.to_scale(
    axes[0],
    [("X", n, d_model, "ink"), "×", ("$W_Q$ of a head", d_model, d_k, "query"), "=", ("Q", n, d_k, "query")],
)
plot.to_scale(
    axes[1],
    [
        ("Q", n, d_k, "query"),
        "×",
        ("Kᵀ", d_k, n, "key"),
        "→",
        ("weights", n, n, "weights"),
        "×",
        ("V", n, d_k, "value"),
    ],
)
plot.to_scale(
    axes[2],
    [
        (f"{h} heads joined", n, d_model, "output"),
        "×",
        ("$W_O$", d_model, d_model, "ink"),
        "=",
        ("output", n, d_model, "output"),
    ],
)
plot.describe(
    fig,
    f"Three lines of rectangles drawn to one scale. X is {n} by {d_model}; the query projection of one head is "
    f"{d_model} by "
    f"{d_k}; Q, K and V of a head are {n} by {d_k}; its weights are {n} by {n}; the {h} heads joined are {n} by "
    f"{d_model} again, and W_O is {d_model} by {d_model}.",
)
