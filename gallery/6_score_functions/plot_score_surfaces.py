"""
The landscape of each score
===========================

One query stands still, and a key moves over the plane. The colour is the score.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

BLACK = "#111111"  # on the colours of the maps, which are those of a light page in both themes
ARROW = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}

q = np.array([[1.5, 0.75]])
side = np.linspace(-3, 3, 61)
k = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
rng = np.random.default_rng(3)
w = np.array([[0.0, 1], [-1, 0]])
w_query, w_key, v = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), np.array([1.5, -1.0, 1.0])
surfaces = {
    "dot": ag.dot_score(q, k),
    "scaled dot": ag.scaled_dot_score(q, k),
    "general, a quarter turn": ag.general_score(q, k, w),
    "cosine": ag.cosine_score(q, k),
    "additive, hidden width 3": ag.additive_score(q, k, w_query, w_key, v),
    "additive, query −q": ag.additive_score(-q, k, w_query, w_key, v),
}
surfaces = {name: s.reshape(61, 61) for name, s in surfaces.items()}

fig = plot.figure(
    "scores-surfaces",
    title="Products are planes, the cosine is a fan, the network is a staircase",
    caption=(
        "The score of one query (arrow) with keys at every point of the plane, from −3 to 3 in both components. Lines "
        "join keys of equal score. Each panel has its own range of colours, the same on both sides of 0; the range is "
        f"{np.abs(surfaces['dot']).max():.1f} for dot and {np.abs(surfaces['cosine']).max():.0f} for the cosine. The "
        "parameters of the additive score are random (seed 3); concat is the same function."
    ),
    size=(5.4, 6.6),
)
for ax, (name, s) in zip(fig.subplots(3, 2).flat, surfaces.items(), strict=True):
    top = np.abs(s).max()
    ax.pcolormesh(side, side, s, cmap=plot.DIVERGING, vmin=-top, vmax=top, rasterized=True)
    ax.contour(side, side, s, levels=np.linspace(-top, top, 12)[1:-1], colors=BLACK, linewidths=0.5, linestyles="solid")
    sign = -1 if "−q" in name else 1
    ax.annotate("", sign * q[0], (0, 0), arrowprops=ARROW)
    ax.set_title(name, fontsize=11, color=plot.SCORES, loc="left")
    ax.set(aspect="equal", xticks=[], yticks=[])
plot.describe(
    fig,
    "Six maps of a score over the plane of keys. "
    + " ".join(f"{name}: from {s.min():.2f} to {s.max():.2f}." for name, s in surfaces.items())
    + " Dot and scaled dot have the same straight lines at right angles to the query, general has them turned by a "
    "quarter, the lines of the cosine are rays from the origin, and the additive score has plateaus with "
    "steep edges between them, which lie elsewhere for the "
    "opposite query.",
)
