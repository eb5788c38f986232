"""
Beyond the length of training
=============================

The model was trained on sequences of one length and reads longer ones. With all keys its loss climbs. With a window
that is shorter than what it was trained on it does not.
"""

import numpy as np
import torch

import attn_guide as ag
from attn_guide import models, plot
from attn_guide.models.gpt import corpus

trained = models.load("gpt")
experiment, model = trained.experiment, trained.model
length, window, group = 384, 64, 16
text = corpus()
pieces = [text[i : i + 2000] for i in range(0, len(text) - 1999, 2000)][9::10]  # those that training left out
rows = torch.stack([experiment.encode(piece[: length + 1]) for piece in pieces])


def loss(mask):
    """The mean loss of groups of positions when the model reads under a mask."""
    allowed = torch.from_numpy(mask.materialize(length))
    with torch.no_grad():
        x = model.embedding(rows[:, :-1]) * model.embedding.weight.shape[1] ** 0.5
        for block in model.blocks:
            x = block(x, allowed)[0]
        logits = model.output(model.norm(x))
        each = torch.nn.functional.cross_entropy(logits.mT, rows[:, 1:], reduction="none")
    return each.numpy().mean(axis=0).reshape(-1, group).mean(axis=1)


found = {"all keys": loss(ag.causal), f"window of {window}": loss(ag.causal & ag.sliding_window(window - 1, 0))}
place = np.arange(group, length + 1, group) - group / 2
trained_on = models.recipe("gpt").settings["length"]

fig = plot.figure(
    "causal-gpt-beyond",
    title=f"Trained on {trained_on} characters, it needs a window to read more",
    caption=(
        f"Held-out loss of the decoder `gpt`, means over {group} positions and {len(rows)} texts, with every earlier "
        f"key (`ag.causal`) and with the last {window} (`ag.causal & ag.sliding_window({window - 1}, 0)`). The "
        "vertical line is the length of training."
    ),
    size=(5.6, 3.6),
)
ax = fig.subplots()
plot.curve(
    ax, place, found, colours={"all keys": plot.SCORES, f"window of {window}": plot.KEY}, marks=False,
    xlabel="characters read", ylabel="loss, nats per character",
)  # fmt: skip
ax.axvline(trained_on, color=plot.MUTED, linewidth=1.2)
ax.set_ylim(0)
ax.annotate("trained up to here", (trained_on, 0), (5, 6), textcoords="offset points", color=plot.MUTED, fontsize=10)
plot.describe(
    fig,
    f"Line chart of the loss up to {length} characters; training was on {trained_on}. "
    + " ".join(
        f"With {name}: {a[place < trained_on][-1]:.2f} at the end of the trained length and {a[-1]:.2f} at {length}."
        for name, a in found.items()
    ),
)
