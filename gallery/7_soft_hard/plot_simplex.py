"""
Where the weights can lie
=========================

The same random scores through softmax, entmax and sparsemax. Softmax stays inside the triangle; the others reach its
sides and corners, where weights are exactly zero.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

scores = np.random.default_rng(0).standard_normal((1500, 3))
corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
maps = {"softmax": 1.0, "entmax, α = 1.5": 1.5, "sparsemax": 2.0}
weights = {name: ag.entmax(scores, alpha) for name, alpha in maps.items()}
count = {name: np.bincount((w > 0).sum(axis=1), minlength=4)[1:] / len(w) for name, w in weights.items()}

fig = plot.figure(
    "soft-simplex",
    title=f"Of 1,500 random rows sparsemax leaves {count['sparsemax'][2]:.0%} inside the triangle, softmax all",
    caption=(
        "Rows of three standard normal scores, seed 0, through `ag.softmax`, `ag.entmax` and `ag.sparsemax`. Corners "
        "are the three choices; on a side one weight is exactly zero, at a corner two are. The share of points inside, "
        "on sides and at corners stands below each triangle."
    ),
    size=(6.4, 3.2),
)
for ax, (name, w) in zip(fig.subplots(1, 3), weights.items(), strict=True):
    ax.plot(*corners[[0, 1, 2, 0]].T, color=plot.MUTED, linewidth=1.0)
    positive = (w > 0).sum(axis=1)
    for many, ink, size in ((3, plot.WEIGHTS, 6), (2, plot.KEY, 8), (1, plot.QUERY, 40)):
        points = w[positive == many] @ corners
        ax.scatter(*points.T, s=size, color=ink, alpha=0.35 if many > 1 else 1.0, linewidth=0, zorder=2 + 3 - many,
                   marker="o" if many > 1 else "s")  # fmt: skip
    corner, side, inside = count[name]
    ax.set_title(name, fontsize=10, loc="center")
    below = f"{inside:.0%} inside\n{side:.0%} sides\n{corner:.0%} corners"
    ax.text(0.5, -0.2, below, ha="center", va="top", fontsize=10, color=plot.INK)
    ax.set_aspect("equal")
    ax.set_xlim(-0.08, 1.08)
    ax.set_ylim(-0.75, 0.98)
    ax.set_axis_off()
plot.describe(
    fig,
    "Three triangles with 1,500 points. "
    + " ".join(
        f"{name.capitalize()}: {c[2]:.0%} inside, {c[1]:.0%} on sides, {c[0]:.0%} at corners."
        for name, c in count.items()
    ),
)
