"""
A draw is a step function
=========================

With the noise held fixed, the value that is drawn stays the same as a score moves, and then jumps. The mean over all
draws moves smoothly.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

scores, values = np.log([0.1, 0.25, 0.35, 0.2, 0.1]), np.array([1.0, 2, 3, 4, 5])
change = np.linspace(-3, 5, 401)
moved = scores + change[:, None] * np.eye(5)[4]  # (401, 5): the score of value 5 moves
noise = ag.gumbel_noise((4, 5), np.random.default_rng(2))
draws = values[(moved + noise[:, None]).argmax(axis=-1)]  # (4, 401)
mean = ag.softmax(moved) @ values  # (401,)
jumps = [float(change[1:][np.diff(d) != 0][0]) if np.any(np.diff(d)) else float("nan") for d in draws]

fig = plot.figure(
    "soft-no-gradient",
    title="A draw stays where it is, and then jumps: its slope is zero wherever it has one",
    caption=(
        "The score of value 5 moves, all else is fixed. Thin: the value drawn, argmax(scores + noise), for four draws "
        "of the noise (seed 2), set slightly apart. Thick: the mean over all draws, which is the soft output. "
        "`ag.gumbel_noise`, `ag.softmax`."
    ),
    size=(5.6, 3.6),
)
ax = fig.subplots()
for i, d in enumerate(draws):
    ax.plot(change, d + 0.05 * (i - 1.5), color=plot.KEY, linewidth=1.2)
ax.plot(change, mean, color=plot.WEIGHTS, linewidth=3)
ax.annotate("mean of all draws", (change[0], mean[0]), (4, -16), textcoords="offset points",
            color=plot.WEIGHTS, fontsize=9)  # fmt: skip
ax.annotate("four draws", (-2.9, draws[:, 0].max()), (0, 8), textcoords="offset points", color=plot.KEY, fontsize=9)
ax.set_yticks(values)
ax.grid(True, axis="y")
ax.set_xlabel("change of the score of value 5")
ax.set_title("output", fontsize=9, color=plot.MUTED, loc="left")
plot.describe(
    fig,
    "Line chart of the output against the score of value 5. Four draws are steps that begin at "
    + ", ".join(f"{d[0]:.0f}" for d in draws)
    + " and jump to 5 when the score has risen by "
    + ", ".join(f"{j:.1f}" for j in jumps)
    + f". Their mean over all draws rises smoothly from {mean[0]:.2f} to {mean[-1]:.2f}.",
)
