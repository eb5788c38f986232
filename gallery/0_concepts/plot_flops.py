"""
Where the work of a Transformer layer goes
==========================================

Projections and the feed-forward layer grow in proportion to the length, the n × n part with its square. With a
feed-forward layer of width 4 d the curves cross at n = 2d, 4d and 6d.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

d = 768
n = np.array([2**i for i in range(7, 16)])
attention = [ag.attention_flops(int(i), d, num_heads=12) for i in n]
feed_forward = np.array([ag.feed_forward_flops(int(i), d).macs for i in n])
projections = np.array([a.projections for a in attention])
quadratic = np.array([a.quadratic for a in attention])

fig = plot.figure(
    "concepts-flops",
    title=f"Below {4 * d:,} tokens the feed-forward layer costs more than the n × n matrix",
    caption=(
        f"Multiply-adds of one layer with `d_model = {d}` and `d_ff = {4 * d}`, from `ag.attention_flops` and "
        "`ag.feed_forward_flops`. The dots mark where the n × n part (scores and weighted sum) equals the "
        "projections, the "
        "feed-forward layer, and both together."
    ),
    size=(5.2, 4.4),
)
ax = fig.subplots()
plot.curve(
    ax, n, {"n × n part": quadratic, "feed-forward": feed_forward, "projections": projections},
    theory={"both linear parts": projections + feed_forward},
    colours={"n × n part": plot.WEIGHTS, "feed-forward": plot.OUTPUT, "projections": plot.QUERY},
    log="xy", ticks=n[::2], marks=False, xlabel="tokens n", ylabel="multiply-adds per layer",
)  # fmt: skip
for times in (2, 4, 6):
    at = times * d
    cost = ag.attention_flops(at, d).quadratic
    ax.plot(at, cost, "o", color=plot.WEIGHTS, markersize=7, zorder=5)
crossings = ((2, "projections"), (4, "feed-forward"), (6, "both"))
ax.text(
    0.98,
    0.04,
    "\n".join(f"= {what} at {times}d = {times * d:,}" for times, what in crossings),
    transform=ax.transAxes,
    ha="right",
    va="bottom",
    color=plot.WEIGHTS,
    linespacing=1.5,
    bbox={"facecolor": plot.BACKGROUND, "edgecolor": "none", "pad": 2},
)
share = quadratic / (quadratic + projections + feed_forward)
plot.describe(
    fig,
    f"Line chart on logarithmic axes, n from {n[0]} to {n[-1]:,}. The n × n part meets the projections at "
    f"{2 * d:,} tokens, the "
    f"feed-forward layer at {4 * d:,} and both together at {6 * d:,}. It makes up {share[2]:.0%} of the layer "
    f"at {n[2]} tokens and "
    f"{share[-1]:.0%} at {n[-1]:,}.",
)
