"""
What the model loses with a head
================================

The loss of the trained model with one head taken out, with all but one of a layer, and with a whole layer. One dot for
each of five seeds.
"""

from math import log

import numpy as np
from matplotlib.ticker import FuncFormatter

from attn_guide import models, plot

runs = [models.load("induction", seed) for seed in range(5)]
losses: dict[str, list[float]] = {
    "all heads": [], "without a head of layer 1": [], "without a head of layer 0": [],
    "without the best previous-token head": [], "with one head of layer 1": [], "without layer 1": [],
    "without layer 0": [],
}  # fmt: skip
for run in runs:
    experiment = run.experiment
    alone = experiment.ablation()  # (layers, heads)
    best = int(experiment.scores()["previous"][0].argmax())
    losses["all heads"].append(run.results["test_loss"])
    losses["without a head of layer 1"] += list(alone[1])
    losses["without a head of layer 0"] += [float(x) for i, x in enumerate(alone[0]) if i != best]
    losses["without the best previous-token head"].append(float(alone[0, best]))
    losses["with one head of layer 1"] += [
        experiment.without(*((1, other) for other in range(4) if other != kept)) for kept in range(4)
    ]
    losses["without layer 1"].append(run.results["without_layer_1"])
    losses["without layer 0"].append(run.results["without_layer_0"])
guess = log(runs[0].experiment.tokens)
middle = {name: float(np.median(values)) for name, values in losses.items()}

fig = plot.figure(
    "heads-ablation",
    title="One head less costs little; a layer less is worse than guessing",
    caption=(
        "Loss of the model `induction` on unseen repeated sequences, in nats, with heads set to 0 after "
        "training. Dots are "
        "seeds 0 to 4 (and heads, where a line has several); the bar is the median. Dashed: guessing among all tokens."
    ),
    size=(6.2, 3.6),
)
ax = fig.subplots()
for place, (name, values) in enumerate(losses.items()):
    ax.plot(values, np.full(len(values), place), "o", color=plot.WEIGHTS, alpha=0.45, markeredgewidth=0)
    ax.plot([middle[name]] * 2, [place - 0.3, place + 0.3], color=plot.INK, linewidth=2)
ax.axvline(guess, color=plot.MUTED, linestyle=(0, (4, 3)))
ax.set_xscale("log")
ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
ax.set_yticks(range(len(losses)), list(losses))
ax.invert_yaxis()
ax.tick_params(axis="y", length=0)
ax.grid(True, axis="x")
ax.spines["left"].set_visible(False)
ax.set_xlabel("loss, nats")
plot.describe(
    fig,
    "Dots on a logarithmic axis. Median loss: "
    + "; ".join(f"{name}: {value:.3f}" for name, value in middle.items())
    + f". Guessing: {guess:.2f}.",
)
