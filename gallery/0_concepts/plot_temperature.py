"""
Temperature sharpens or flattens, and never reorders
====================================================

The same six scores at five temperatures. Low temperatures approach a choice of the largest, high ones a uniform
average; the order of the bars is always that of the scores.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

scores = np.array([1.2, 0.3, 2.0, -0.5, 0.9, 1.6])
temperatures = (0.1, 0.5, 1.0, 2.0, 10.0)
weights = {tau: ag.softmax(scores, temperature=tau) for tau in temperatures}

fig = plot.figure(
    "concepts-temperature",
    title="Lower temperatures sharpen the weights; no temperature changes their order",
    caption=(
        "`ag.softmax(scores, temperature=tau)` for one row of six scores. H is the entropy, at most log 6 = 1.79 nats."
    ),
    size=(4.8, 6.4),
)
axes = fig.subplots(len(temperatures), 1, sharey=True, sharex=True)
for ax, (tau, w) in zip(axes, weights.items(), strict=True):
    plot.bars(ax, [f"key {j}\ns = {s:g}".replace("-", "−") for j, s in enumerate(scores)], w, highlight=int(w.argmax()))
    ax.set_title(f"τ = {tau:g},  H = {ag.attention_entropy(w):.2f}", loc="left")
    ax.set_ylim(0, 1.2)
plot.describe(
    fig,
    f"Five bar charts of the weights of scores {', '.join(f'{s:g}' for s in scores)}. "
    + " ".join(
        f"Temperature {tau:g}: largest weight {w.max():.2f}, smallest {w.min():.3f}, entropy "
        f"{ag.attention_entropy(w):.2f} nats."
        for tau, w in weights.items()
    ),
)
