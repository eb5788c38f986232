"""
One head and two on a task of two patterns
==========================================

Name the token before and the token after, in a circle. The weights that one head and two heads have learned, with how
often each answer is right.
"""

import numpy as np

from attn_guide import models, plot

one, two = models.load("two-patterns-1-head"), models.load("two-patterns-2-heads")
matrices = [*one.experiment.attention().numpy(), *two.experiment.attention().numpy()]  # (n, n) each
length = len(matrices[0])


def shares(weights: np.ndarray) -> tuple[float, float]:
    """The mean weight on the place before and on the place after."""
    place = np.arange(length)
    return float(weights[place, place - 1].mean()), float(weights[place, (place + 1) % length].mean())


fig = plot.figure(
    "heads-two-patterns",
    title=f"One head is right twice in {one.results['both']:.0%} of places, two heads in {two.results['both']:.0%}",
    caption=(
        f"Weights averaged over 500 unseen sequences of {length} tokens, seed 0; rows are queries. The layer "
        f"has the same "
        f"{one.results['parameters']:,.0f} parameters with one head and with two."
    ),
    size=(6.4, 3.0),
)
axes = fig.subplots(1, 3)
titles = ["one head", "two heads: head 0", "two heads: head 1"]
for ax, title, weights in zip(axes, titles, matrices, strict=True):
    before, after = shares(weights)
    plot.matrix(ax, weights, kind="weights", annotate=False, limits=(0, 1))
    ax.set_title(f"{title}\nbefore {before:.2f}, after {after:.2f}", fontsize=9)
plot.describe(
    fig,
    f"Three matrices of {length} by {length}. "
    + " ".join(
        f"{title.capitalize()}: weight {shares(w)[0]:.2f} on the place before and {shares(w)[1]:.2f} on the "
        f"place after."
        for title, w in zip(titles, matrices, strict=True)
    )
    + f" One head names the token before right {one.results['before']:.0%} and the token after "
    f"{one.results['after']:.0%} of the time; two heads {two.results['before']:.0%} and {two.results['after']:.0%}.",
)
