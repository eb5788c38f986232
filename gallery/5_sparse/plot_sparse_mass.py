"""
What a window keeps of a trained model
======================================

The share of attention that the trained language model gives to its last keys, and its loss when it may see no others.
"""

import numpy as np
import torch

import attn_guide as ag
from attn_guide import models, plot
from attn_guide.models.gpt import corpus

trained = models.load("gpt")
experiment, model = trained.experiment, trained.model
n = models.recipe("gpt").settings["length"]
text = corpus()
pieces = [text[i : i + 2000] for i in range(0, len(text) - 1999, 2000)][9::10]  # those that training left out
parts = [piece[i : i + n + 1] for piece in pieces for i in range(0, len(piece) - n, n + 1)]
rows = torch.stack([experiment.encode(part) for part in parts[:60]])
windows = np.array([1, 2, 4, 8, 16, 32, 64])
inside = [(ag.causal & ag.sliding_window(int(w) - 1, 0)).materialize(n) for w in windows]
late = slice(63, None)  # rows that see 64 keys and more


def loss(mask):
    with torch.no_grad():
        x = model.embedding(rows[:, :-1]) * model.embedding.weight.shape[1] ** 0.5
        for block in model.blocks:
            x = block(x, torch.from_numpy(mask))[0]
        logits = model.output(model.norm(x))
        each = torch.nn.functional.cross_entropy(logits.mT, rows[:, 1:], reduction="none")
    return float(each[:, late].mean())


with torch.no_grad():
    weights = model(rows[:, :-1])[2].double().numpy()  # (texts, layers, heads, n, n)
mass = np.array([(weights * a).sum(axis=-1)[..., late].mean(axis=(0, 2, 3)) for a in inside])  # (windows, layers)
even = np.array([(w / np.arange(1, n + 1))[late].mean() for w in windows])
losses, whole = np.array([loss(a) for a in inside]), loss(ag.causal.materialize(n))

fig = plot.figure(
    "sparse-mass",
    title=f"The last 8 keys hold {mass[3].mean():.0%} of the attention, and are nearly enough",
    caption=(
        f"The decoder `gpt` on {len(rows)} held-out texts, rows that see at least 64 keys. Above: weight on the "
        "last w keys, "
        "mean over the heads of a layer; dashed: an even share. Below: its loss when it reads with a window of w "
        "keys in "
        "every layer; dashed: with all keys. Nothing was trained again."
    ),
    size=(5.8, 6.0),
)
top, bottom = fig.subplots(2, 1)
plot.curve(
    top, windows, {f"layer {i + 1}": a for i, a in enumerate(mass.T)}, theory={"even share": even}, log="x",
    ticks=windows,
    ylabel="share of the weight", xlabel="window w", colours={"layer 1": plot.QUERY, "layer 2": plot.KEY},
)  # fmt: skip
top.set_ylim(0, 1.05)
plot.curve(
    bottom, windows, {"window": losses}, theory={"all keys": np.full(len(windows), whole)}, log="x", ticks=windows,
    ylabel="loss, nats per character", xlabel="window w", colours={"window": plot.OUTPUT},
)  # fmt: skip
bottom.set_ylim(0)
plot.describe(
    fig,
    " ".join(
        f"Window {w}: {', '.join(f'{m:.0%} in layer {i + 1}' for i, m in enumerate(a))}, an even share is "
        f"{e:.0%}; loss {c:.2f}."
        for w, a, e, c in zip(windows, mass, even, losses, strict=True)
    )
    + f" With all keys the loss is {whole:.2f}.",
)
