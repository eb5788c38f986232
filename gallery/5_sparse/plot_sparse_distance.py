"""
What a window cannot answer
===========================

Two trained models that differ in one global token, asked for something that may be far away.
"""

import numpy as np

from attn_guide import models, plot

places = [1, 2, 4, 6, 8, 9, 12, 16, 24, 32, 48, 63]
settings = models.recipe("longformer").settings
reach = settings["layers"] * settings["window"] // 2
right = {
    label: models.load(name).experiment.accuracy_by_distance(places)
    for label, name in (("with a global token", "longformer"), ("window alone", "window-only"))
}
chance = 1 / settings["digits"]

fig = plot.figure(
    "sparse-distance",
    title=f"Beyond {settings['layers']} layers × {settings['window'] // 2} tokens a window can only guess",
    caption=(
        f"Share of right answers, 200 sequences of {settings['length']} tokens at each distance. The question "
        "stands at "
        f"position 0, the answer at the distance shown. {settings['layers']} layers, window {settings['window']} "
        "(half on "
        f"each side), {settings['steps']} steps of training, seed 0. Dashed: guessing. Upright: "
        f"the reach, {reach} tokens."
    ),
    size=(6.2, 3.8),
)
ax = fig.subplots()
plot.curve(
    ax, places, right, theory={"guessing": np.full(len(places), chance)}, log="x", ticks=[1, 2, 4, 8, 16, 32, 63],
    colours={"with a global token": plot.QUERY, "window alone": plot.SCORES},
    xlabel="distance of the answer", ylabel="share right",
)  # fmt: skip
ax.axvline(reach + 0.5, color=plot.MUTED, linewidth=1.2)
ax.set_ylim(0, 1.05)
plot.describe(
    fig,
    "Line chart. "
    + " ".join(
        f"{name}: {', '.join(f'{a:.0%} at {p}' for p, a in zip(places, values, strict=True))}."
        for name, values in right.items()
    ),
)
