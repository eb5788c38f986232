"""
Training one layer with three scales
====================================

One attention layer learns to look a value up by its key, with each scale, with plain gradient descent and with Adam.
All of them learn. What the scale changes is how fast, how smoothly, and at which learning rate.
"""

import numpy as np

from attn_guide import experiments, plot

d_k, steps, seeds = 64, 300, (0, 1, 2, 3, 4)
scales = {"no scaling": 1.0, "1/√dₖ": d_k**-0.5, "1/dₖ": 1.0 / d_k}
inks = {"no scaling": plot.KEY, "1/√dₖ": plot.QUERY, "1/dₖ": plot.VALUE}
rates = {"sgd": (0.03, 0.1, 0.3, 1.0), "adam": (0.001, 0.003, 0.01, 0.03)}
titles = {"sgd": "gradient descent", "adam": "Adam"}

losses = {
    (optimizer, name): experiments.train_retrieval(
        scale, rates[optimizer], optimizer=optimizer, seeds=seeds, steps=steps
    )
    for optimizer in rates
    for name, scale in scales.items()
}  # each (rates, seeds, steps)

fig = plot.figure(
    "concepts-training",
    title="All three scales learn; without scaling slowest, and least evenly",
    caption=(
        f"`experiments.train_retrieval`: one layer, `d_model = 32`, `d_k = {d_k}`, seeds 0 to 4. Top: loss of each "
        "scale at its "
        "own best rate, smoothed over 10 steps, mean and range over the seeds. Bottom: loss averaged over all "
        f"{steps} steps against the learning rate; a missing point is a rate at which some seed diverged."
    ),
    size=(5.6, 6.2),
)
axes = fig.subplots(2, 2, sharey="row")
words = []
for column, optimizer in enumerate(rates):
    curves, bands, by_rate = {}, {}, {}
    for name in scales:
        loss = losses[optimizer, name]
        mean = loss.mean(axis=-1)  # (rates, seeds)
        by_rate[name] = np.where(np.isfinite(mean).all(axis=-1), mean.mean(axis=-1), np.nan)
        best = int(np.nanargmin(by_rate[name]))
        smooth = loss[best].reshape(len(seeds), -1, 10).mean(axis=-1)  # (seeds, steps / 10)
        curves[name], bands[name] = smooth.mean(axis=0), np.stack([smooth.min(axis=0), smooth.max(axis=0)])
        words.append(
            f"{titles[optimizer]}, {name}: best rate {rates[optimizer][best]:g}, mean loss "
            f"{by_rate[name][best]:.2f}, "
            f"last 50 steps {loss[best, :, -50:].mean():.3f}."
        )
    top, bottom = axes[:, column]
    plot.curve(
        top,
        np.arange(5, steps, 10),
        curves,
        bands=bands,
        colours=inks,
        marks=False,
        ticks=(0, 100, 200),
        xlabel="step",
        ylabel="loss (nats)",
    )
    plot.curve(bottom, rates[optimizer], by_rate, colours=inks, log="x", ticks=rates[optimizer], xlabel="learning rate",
               ylabel="mean loss")  # fmt: skip
    top.text(0.5, 0.95, titles[optimizer], transform=top.transAxes, ha="center", va="top", fontweight="bold")
plot.describe(fig, "Loss curves over training, and mean loss against learning rate. " + " ".join(words))
