"""
Spread against width
====================

The variance of each score over random queries and keys, as they get wider.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
widths, pairs, draws = np.array([4, 8, 16, 32, 64, 128, 256]), 100, 20
variance = {name: [] for name in ("dot", "general", "scaled dot", "additive", "cosine")}
for d in widths:
    squares = {name: [] for name in variance}
    for _ in range(draws):
        q, k = rng.standard_normal((2, pairs, 1, d))
        w, w_q, w_k = rng.standard_normal((3, d, d)) / np.sqrt(d)
        v = rng.standard_normal(d) / np.sqrt(d)
        for name, s in {
            "dot": ag.dot_score(q, k),
            "general": ag.general_score(q, k, w),
            "scaled dot": ag.scaled_dot_score(q, k),
            "additive": ag.additive_score(q, k, w_q, w_k, v),
            "cosine": ag.cosine_score(q, k),
        }.items():
            squares[name].append(np.mean(s**2))
    for name in variance:
        variance[name].append(np.mean(squares[name]))

fig = plot.figure(
    "scores-spread",
    title="Dot spreads with the width, cosine shrinks, additive and scaled dot keep still",
    caption=(
        f"Variance over {pairs * draws:,} pairs for each width, from {draws} draws of the parameters (seed 0). "
        "Components of queries and keys have mean 0 and variance 1; entries of the matrices and of v have "
        "variance 1/d. The line of dot lies under that of general. Both axes are logarithmic."
    ),
    size=(5.2, 3.8),
)
ax = fig.subplots()
plot.curve(
    ax, widths, variance, log="xy", ticks=widths, xlabel="width d", ylabel="variance of the score",
    colours={"dot": plot.SCORES, "general": plot.QUERY, "scaled dot": plot.KEY, "additive": plot.VALUE,
             "cosine": plot.OUTPUT},
)  # fmt: skip
plot.plain_numbers(ax)
plot.describe(
    fig,
    f"Line chart on logarithmic axes, widths {widths[0]} to {widths[-1]}. "
    + " ".join(
        f"{name}: variance {row[0]:.3g} at the smallest width and {row[-1]:.3g} at the largest."
        for name, row in variance.items()
    ),
)
