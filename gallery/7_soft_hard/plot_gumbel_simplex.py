"""
Gumbel-softmax draws on the simplex
===================================

Each point is one draw for three choices. At a high temperature draws are mixtures, at a low one nearly corners.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

scores = np.log([0.5, 0.3, 0.2])
temperatures = (2.0, 1.0, 0.5, 0.1)
corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
draws = {
    t: ag.gumbel_softmax(np.tile(scores, (600, 1)), temperature=t, rng=np.random.default_rng(0)) for t in temperatures
}
near = {t: float((d.max(axis=1) > 0.9).mean()) for t, d in draws.items()}
nearest = {t: np.bincount(d.argmax(axis=1), minlength=3) / len(d) for t, d in draws.items()}

fig = plot.figure(
    "soft-gumbel-simplex",
    title=f"Cooled, draws gather at the corners: a weight above 0.9 in {near[2.0]:.0%} at τ = 2, in "
    f"{near[0.1]:.0%} at τ = 0.1",
    caption=(
        "600 draws of `ag.gumbel_softmax` for three choices with probabilities 0.5, 0.3 and 0.2 (seed 0, the same "
        "noise in every triangle). The corner a draw is nearest to is the same at every temperature."
    ),
    size=(6.4, 5.2),
)
for ax, (t, d) in zip(fig.subplots(2, 2).ravel(), draws.items(), strict=True):
    ax.plot(*corners[[0, 1, 2, 0]].T, color=plot.MUTED, linewidth=1.2)
    ax.scatter(*(d @ corners).T, s=7, color=plot.WEIGHTS, alpha=0.4, linewidth=0)
    for corner, name, (dx, dy, side) in zip(
        corners, ("0.5", "0.3", "0.2"), ((-4, -12, "center"), (4, -12, "center"), (0, 5, "center")), strict=True
    ):
        ax.annotate(name, corner, (dx, dy), textcoords="offset points", ha=side, fontsize=10, color=plot.MUTED)
    ax.set_title(f"τ = {t:g}", fontsize=10, loc="center")
    ax.set_aspect("equal")
    ax.set_xlim(-0.1, 1.1)
    ax.set_ylim(-0.16, 1.02)
    ax.set_axis_off()
plot.describe(
    fig,
    "Four triangles with 600 points each. Share of points with a weight above 0.9: "
    + ", ".join(f"{share:.0%} at temperature {t:g}" for t, share in near.items())
    + ". Nearest corners at every temperature: "
    + ", ".join(f"{share:.0%}" for share in nearest[1.0])
    + ".",
)
