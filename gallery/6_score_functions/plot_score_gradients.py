"""
Which way a key is pushed
=========================

The gradient of one score with respect to its key, at many places of the plane.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

ARROW = {"arrowstyle": "-|>", "color": plot.QUERY, "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0}

q = np.array([[1.5, 0.75]])
side = np.linspace(-2.6, 2.6, 8)
k = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 1, 2)  # one key in each of 64 problems
rng = np.random.default_rng(3)
w_query, w_key, v = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), np.array([1.5, -1.0, 1.0])
queries, one = np.repeat(q[None], len(k), axis=0), np.ones((len(k), 1, 1))
fields = {
    "dot": ag.dot_score_backward(one, queries, k)[1],
    "cosine": ag.cosine_score_backward(one, queries, k)[1],
    "additive": ag.additive_score_backward(one, queries, k, w_query, w_key, v)[1],
}
size = {name: np.linalg.norm(g[:, 0], axis=-1) for name, g in fields.items()}

fig = plot.figure(
    "scores-gradients",
    title="Dot pushes every key alike, the cosine turns it, additive pushes only on its steps",
    caption=(
        "Gradient of the score of one query (thick arrow) with respect to a key at each point, from "
        "`ag.dot_score_backward`, `ag.cosine_score_backward` and `ag.additive_score_backward`. The length of an "
        "arrow is the square root of the gradient's, on one scale in each panel. Parameters of the additive score as "
        "in the figure of the landscapes."
    ),
    size=(6.4, 3.1),
)
for ax, (name, g) in zip(fig.subplots(1, 3), fields.items(), strict=True):
    g = g[:, 0] * 0.62 / np.sqrt(size[name].max() * np.maximum(size[name], 1e-12))[:, None]
    ax.quiver(*k[:, 0].T, *g.T, color=plot.SCORES, angles="xy", scale_units="xy", scale=1, width=0.012)
    ax.annotate("", q[0], (0, 0), arrowprops=ARROW)
    ax.set_title(name, fontsize=11, color=plot.SCORES, loc="left")
    ax.set(aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xticks=[], yticks=[])
plot.describe(
    fig,
    "Three fields of arrows over the plane of keys. "
    + " ".join(f"{name}: lengths from {s.min():.2f} to {s.max():.2f}." for name, s in size.items())
    + " Dot has equal arrows along the query everywhere. Those of the cosine are at right angles to the key "
    "and longest "
    "near the origin. Those of the additive score are long in a band and next to nothing outside it.",
)
