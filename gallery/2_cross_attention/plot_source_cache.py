"""
The source is projected once
============================

How many multiply-adds it takes to write a target, with the source's keys and values stored and without.
"""

import numpy as np

from attn_guide import plot

d, m = 64, 128
n = np.arange(1, 65)
once = 2 * m * d * d + n * (d * d + 2 * m * d)
again = n * (2 * m * d * d + d * d + 2 * m * d)

fig = plot.figure(
    "cross-cache",
    title=f"After {n[-1]} words, projecting the source each time has cost {again[-1] / once[-1]:.0f} times as much",
    caption=(
        f"Multiply-adds of one head of width {d} and a source of {m} tokens: $2md^2$ for keys and values, once or at "
        "each step, and $d^2 + 2md$ for each target token. The claim counts them from products that are performed."
    ),
    size=(6.4, 3.4),
)
ax = fig.subplots()
plot.curve(
    ax, n, {"projected again": again / 1e6, "stored once": once / 1e6}, xlabel="target tokens written",
    ylabel="multiply-adds so far, in millions", marks=False,
    colours={"projected again": plot.MUTED, "stored once": plot.KEY},
)  # fmt: skip
plot.describe(
    fig,
    f"Multiply-adds against target tokens. After {n[-1]}: {again[-1] / 1e6:.1f} million when the source is projected "
    f"at each step, {once[-1] / 1e6:.1f} million when it is stored.",
)
