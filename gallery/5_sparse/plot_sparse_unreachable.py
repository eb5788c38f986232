"""
Tokens that nobody drew
=======================

If every query draws its keys at random, some tokens are drawn by nobody, and what they hold never arrives anywhere.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

n, graphs = 512, 5
drawn = np.array([1, 2, 3, 4, 5])
share = np.array(
    [
        [ag.path_lengths(ag.random_keys(int(r), n, rng=np.random.default_rng(s)), n).unreachable for s in range(graphs)]
        for r in drawn
    ]
)


def dies_out(r):
    """The share x of tokens that reach few others only: x = exp(-r (1 - x))."""
    x = 0.0
    for _ in range(1000):
        x = np.exp(-r * (1 - x))
    return x


fig = plot.figure(
    "sparse-unreachable",
    title=f"With two random keys each, {share[1].mean():.0%} of ordered pairs have no path at any depth",
    caption=(
        f"Ordered pairs of {n} tokens without a path (`ag.path_lengths`), mean of {graphs} graphs, seeds 0 to 4; "
        "the band "
        "is their standard deviation. Dashed: the solution of x = exp(−r (1 − x)), for infinitely many tokens. "
        "Symmetric "
        "edges or one global token bring the line to zero."
    ),
    size=(5.8, 3.8),
)
ax = fig.subplots()
plot.curve(
    ax, drawn, {"measured": share.mean(axis=1)}, bands={"measured": share.std(axis=1, ddof=1)},
    theory={"theory": [dies_out(r) if r > 1 else 1.0 for r in drawn]}, log="y", colours={"measured": plot.SCORES},
    xlabel="random keys of each query, r", ylabel="share of pairs without a path",
)  # fmt: skip
ax.set_xticks(drawn)
ax.set_yticks([0.01, 0.03, 0.1, 0.3, 1], ["1%", "3%", "10%", "30%", "100%"])
ax.set_yticks([], minor=True)
plot.describe(
    fig, "Line chart. " + " ".join(f"r = {r}: {a.mean():.1%} of pairs." for r, a in zip(drawn, share, strict=True))
)
