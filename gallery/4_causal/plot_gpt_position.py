"""
Loss against position
=====================

A small language model predicts each character from those before it. The more there are, the better, up to a point.
"""

import numpy as np

from attn_guide import models, plot

trained = models.load("gpt")
loss = trained.experiment.loss_by_position(count=400)  # (length,), nats
counts = trained.experiment.baselines()
place = np.arange(1, len(loss) + 1)

fig = plot.figure(
    "causal-gpt-position",
    title=f"Most is won early: {loss[0]:.2f} nats after one character, {loss[-32:].mean():.2f} after many",
    caption=(
        f"The decoder `gpt` of `attn_guide.models` ({trained.results['parameters']:,.0f} parameters, characters of "
        "Python's reference manual), held-out text, up to 400 windows. Dashed: predicting from counts of single "
        "characters and of pairs."
    ),
    size=(5.6, 3.6),
)
ax = fig.subplots()
plot.curve(
    ax, place, {"decoder": loss}, theory={name: np.full(len(loss), value) for name, value in counts.items()},
    colours={"decoder": plot.OUTPUT}, marks=False, xlabel="characters read", ylabel="loss, nats per character",
)  # fmt: skip
ax.set_ylim(0)
plot.describe(
    fig,
    "Line chart of the held-out loss. "
    + " ".join(f"After {n}: {loss[n - 1]:.2f}." for n in (1, 2, 4, 8, 16, 32, 64, len(loss)) if n <= len(loss))
    + f" Bigram {counts['bigram']:.2f}, unigram {counts['unigram']:.2f}.",
)
