"""
Training curves of four estimators
==================================

The same classifier, the same batches, the same steps: what differs is how a gradient reaches the choice of a patch.
"""

import numpy as np

from attn_guide import models, plot

seeds = {"soft": 5, "hard": 5, "gumbel": 5, "straight-through": 5, "no-baseline": 3}
names = {
    "soft": "soft", "hard": "REINFORCE", "gumbel": "Gumbel", "straight-through": "straight-through",
    "no-baseline": "no baseline",
}  # fmt: skip
runs = {kind: [models.load(f"glimpse-{kind}", seed=s) for s in range(count)] for kind, count in seeds.items()}
width = 20
loss = {
    names[kind]: np.mean([run.loss.reshape(-1, width).mean(axis=1) for run in found], axis=0)
    for kind, found in runs.items()
}
accuracy = {names[kind]: np.mean([run.history["accuracy"] for run in found], axis=0) for kind, found in runs.items()}
step = runs["soft"][0].history["step"]
middle = width * (np.arange(len(loss["soft"])) + 0.5)
colours = dict(zip(loss, (plot.WEIGHTS, plot.QUERY, plot.KEY, plot.VALUE, plot.MUTED), strict=True))
at = int(np.flatnonzero(step == 100)[0])

fig = plot.figure(
    "soft-digits-training",
    title=f"After 100 steps soft looks read {accuracy['soft'][at]:.0%} of the digits, and REINFORCE "
    f"{accuracy['REINFORCE'][at]:.0%}",
    caption=(
        "Glimpse classifiers of `attn_guide.models`, means over five seeds (three without a baseline). Top: training "
        f"loss, averaged over {width} batches; it is the loss of the looks that were made, soft or drawn. Bottom: "
        "held-out accuracy with the most probable patches."
    ),
    size=(6.4, 6.0),
)
top, bottom = fig.subplots(2, 1)
plot.curve(top, middle, loss, colours=colours, marks=False, ylabel="training loss, nats")
top.set_ylim(0)
plot.curve(bottom, step, accuracy, colours=colours, marks=False, ylabel="held-out accuracy", xlabel="step")
bottom.set_ylim(0, 1)
top.set_xlim(bottom.get_xlim())
plot.describe(
    fig,
    "Two line charts. "
    + " ".join(
        f"{name}: accuracy {a[at]:.2f} after 100 steps, {a[2 * at]:.2f} after 200, {a[-1]:.2f} at the end; loss of the "
        f"last {width} batches {loss[name][-1]:.2f}."
        for name, a in accuracy.items()
    ),
)
