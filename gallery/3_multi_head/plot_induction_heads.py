"""
The heads of a trained model
============================

Two layers of four heads, trained to predict sequences that are said twice. Each head's weights on one unseen sequence,
with what the head does most, and the score of that over a hundred sequences.
"""

import numpy as np
import torch

from attn_guide import models, plot

run = models.load("induction")
experiment = run.experiment
half = experiment.half
sequence = experiment.test[:1]
with torch.no_grad():
    weights = run.model(sequence)[2][0].numpy()  # (layers, heads, n, n)
scores = experiment.scores()  # each (layers, heads)
roles = {"previous": "previous", "induction": "induction", "same": "same token", "first": "first"}

fig = plot.figure(
    "heads-matrices",
    title="Below, heads look one token back; above, they find what followed last time",
    caption=(
        f"All heads of the model `induction` (seed 0) on one unseen sequence of {half} random tokens said "
        f"twice. Rows are "
        f"queries, from the top; the lines mark where the repetition starts. The number is the head’s "
        f"largest score: "
        "its mean weight on the previous token, or, in the second half, on the token that followed the earlier "
        "occurrence, "
        "over 100 unseen sequences."
    ),
    size=(6.4, 4.4),
)
axes = fig.subplots(2, 4)
found = {}
for layer, head in [(layer, head) for layer in (0, 1) for head in range(4)]:
    ax = axes[layer, head]
    role = max(roles, key=lambda name, at=(layer, head): scores[name][at])
    found[layer, head] = f"{roles[role]} {scores[role][layer, head]:.2f}"
    plot.matrix(
        ax, weights[layer, head], kind="weights", annotate=False, limits=(0, 1), mask=np.tri(2 * half, dtype=bool)
    )
    for line in (ax.axhline, ax.axvline):
        line(half - 0.5, color=plot.MUTED, linewidth=0.8)
    ax.set_title(found[layer, head], fontsize=9)
    if head == 0:
        ax.set_ylabel(f"layer {layer}", color=plot.MUTED)
plot.describe(
    fig,
    f"Eight lower-triangular matrices of {2 * half} by {2 * half}. "
    + " ".join(f"Layer {layer}, head {head}: {text}." for (layer, head), text in found.items())
    + f" Induction heads show a diagonal {half - 1} places below the main one, in the second half only.",
)
