"""
How far apart two words are
===========================

In a recurrent network what the first word says passes through every state before it reaches the last. In
self-attention every word is one step from every other.
"""

import numpy as np
from matplotlib.patches import FancyArrowPatch

import attn_guide as ag
from attn_guide import plot

n = 8
masks = {"recurrent layer": ag.sliding_window(1, 0), "window of 5": ag.sliding_window(2, 2), "self-attention": ag.full}
lengths = np.array([4, 8, 16, 32, 64, 128, 256])
longest = {name: np.array([ag.path_lengths(mask, int(i)).longest for i in lengths]) for name, mask in masks.items()}
inks = {"recurrent layer": plot.KEY, "window of 5": plot.VALUE, "self-attention": plot.WEIGHTS}
steps = {name: ag.path_lengths(mask, n).longest for name, mask in masks.items()}

fig = plot.figure(
    "self-path-length",
    title=f"From the first of {n} tokens to the last: {steps['recurrent layer']} steps through an RNN, 1 in attention",
    caption=(
        "Top: the arrows on which something reaches the last token, in a recurrent layer from state to state and in "
        "self-attention directly. Bottom: the longest shortest path between two of n positions, `ag.path_lengths`. A "
        "window of 5 sees two neighbours on either side."
    ),
    size=(5.6, 6.2),
)
chain, direct, chart = fig.subplots(3, 1, height_ratios=[0.8, 1.3, 3])
for ax, name, height in ((chain, "recurrent layer", 0.8), (direct, "self-attention", 1.6)):
    ax.set(xlim=(-0.5, n - 0.5), ylim=(-0.5, height))
    ax.set_axis_off()
    ax.plot(range(n), [0] * n, "o", color=inks[name], markersize=9)
    pairs = [(i, i + 1) for i in range(n - 1)] if name == "recurrent layer" else [(i, n - 1) for i in range(n - 1)]
    for i, j in pairs:
        curve = f"arc3,rad={-0.5 if name == 'recurrent layer' else -0.3}"
        ax.add_patch(FancyArrowPatch(
            (i, 0), (j, 0), connectionstyle=curve, arrowstyle="-|>", mutation_scale=9, color=inks[name], linewidth=1.6,
            shrinkA=6, shrinkB=6, alpha=1.0 if i == 0 or name == "recurrent layer" else 0.4,
        ))  # fmt: skip
    ax.set_title(name, loc="left", color=inks[name], fontweight="bold")
plot.curve(
    chart, lengths, longest, colours=inks, log="xy", ticks=lengths,
    xlabel="tokens n", ylabel="steps between the two furthest tokens",
)  # fmt: skip
plot.plain_numbers(chart)
plot.describe(
    fig,
    f"Two diagrams over {n} tokens and a line chart on logarithmic axes. In the recurrent layer arrows lead from each "
    "state to the next; in self-attention from every token straight to the last. "
    + "Steps: "
    + " ".join(f"{name} {a[0]} at n = {lengths[0]}, {a[-1]} at n = {lengths[-1]}." for name, a in longest.items()),
)
