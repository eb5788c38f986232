"""
From softmax to sparsemax, with two scores
==========================================

The weight of the first of two scores against their difference. Entmax reaches one, softmax never.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

difference = np.linspace(-4, 4, 161)
scores = np.stack([difference, np.zeros_like(difference)], axis=-1)  # (161, 2)
alphas = {"softmax, α = 1": 1.0, "entmax, α = 1.5": 1.5, "sparsemax, α = 2": 2.0}
weights = {name: ag.entmax(scores, alpha)[:, 0] for name, alpha in alphas.items()}
inks = (plot.WEIGHTS, plot.KEY, plot.QUERY)
dashes = ((0, ()), (0, (5, 2)), (0, (2, 1.5)))
reach = {name: float(difference[(w == 1).argmax()]) for name, w in weights.items() if (w == 1).any()}

fig = plot.figure(
    "soft-two-scores",
    title="One apart, sparsemax gives everything to the better score; entmax at two apart; softmax never",
    caption="`ag.entmax` for two scores with α = 1 (softmax), 1.5 and 2 (sparsemax).",
    size=(5.6, 3.4),
)
ax = fig.subplots()
for (name, w), ink, dash in zip(weights.items(), inks, dashes, strict=True):
    ax.plot(difference, w, color=ink, linestyle=dash, linewidth=2, label=name)
ax.legend(frameon=False, fontsize=9, loc="upper left")
ax.grid(True, axis="y")
ax.set_xlabel("first score less second")
ax.set_title("weight of the first", fontsize=9, color=plot.MUTED, loc="left")
plot.describe(
    fig,
    "Line chart of the first weight against the difference of two scores. "
    + " ".join(
        f"{name}: "
        + ", ".join(f"{w[np.abs(difference - x).argmin()]:.2f} at {x:g}" for x in (-2, -1, -0.5, 0, 0.5, 1, 2))
        + "."
        for name, w in weights.items()
    ),
)
