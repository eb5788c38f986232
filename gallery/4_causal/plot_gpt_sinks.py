"""
Looking for sinks
=================

How much attention each position receives in the trained model, beside what the mask alone would give it.
"""

import numpy as np
import torch

from attn_guide import models, plot
from attn_guide.models.gpt import corpus

trained = models.load("gpt")
n = models.recipe("gpt").settings["length"]
text = corpus()
pieces = [text[i : i + 2000] for i in range(0, len(text) - 1999, 2000)][9::10]  # those that training left out
rows = torch.stack([trained.experiment.encode(piece[:n]) for piece in pieces])
with torch.no_grad():
    weights = trained.model(rows)[2].numpy()  # (texts, layers, heads, n, n)
received = weights.mean(axis=(0, 2)).sum(axis=1)  # (layers, n)
tied = np.cumsum((1 / np.arange(1, n + 1))[::-1])[::-1]

fig = plot.figure(
    "causal-gpt-sinks",
    title=f"No sink has formed: the first character receives less than the {tied[0]:.1f} that equal scores would give",
    caption=(
        f"Attention received by each of {n} positions, summed down the columns, mean over the heads of a layer and "
        f"{len(rows)} held-out texts; the trained decoder `gpt`, seed 0. Dashed: equal scores."
    ),
    size=(5.6, 3.6),
)
ax = fig.subplots()
plot.curve(
    ax, np.arange(n), {f"layer {i + 1}": a for i, a in enumerate(received)}, theory={"equal scores": tied}, marks=False,
    xlabel="position of the key", ylabel="attention received",
)  # fmt: skip
plot.describe(
    fig,
    "Line chart of the attention received by each position. "
    + " ".join(
        f"Layer {i + 1}: {a[0]:.2f} by the first, {a[1:-1].max():.2f} at most by any other."
        for i, a in enumerate(received)
    )
    + f" Equal scores give the first {tied[0]:.2f}.",
)
