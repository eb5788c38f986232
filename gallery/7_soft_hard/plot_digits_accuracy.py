"""
Four ways to train where to look
================================

Held-out accuracy of the glimpse classifier: a point for each seed, a bar for the mean.
"""

import numpy as np

from attn_guide import models, plot

seeds = {"soft": 5, "hard": 5, "gumbel": 5, "straight-through": 5, "no-baseline": 3, "unseen": 3, "random": 3}
names = {
    "soft": "soft", "hard": "REINFORCE", "gumbel": "Gumbel-softmax", "straight-through": "straight-through",
    "no-baseline": "REINFORCE, no baseline", "unseen": "REINFORCE, patches unseen", "random": "looks at random",
}  # fmt: skip
found = {
    kind: np.array([models.load(f"glimpse-{kind}", seed=seed).results["accuracy"] for seed in range(count)])
    for kind, count in seeds.items()
}
means = {kind: float(a.mean()) for kind, a in found.items()}

fig = plot.figure(
    "soft-digits-accuracy",
    title=f"Soft looks read {means['soft']:.0%} of the digits, REINFORCE {means['hard']:.0%}, looks at random "
    f"{means['random']:.0%}",
    caption=(
        "Share of 359 held-out digits that are read correctly after four looks at 16 patches. Bars: means; points: "
        "single seeds (five for the first four rows, three for the rest). `attn_guide.models`, `glimpse-*`."
    ),
    size=(6.4, 3.8),
)
ax = fig.subplots()
inks = [plot.WEIGHTS] * 4 + [plot.MUTED] * 3
for place, (kind, ink) in enumerate(zip(seeds, inks, strict=True)):
    ax.barh(place, means[kind], 0.66, color=ink, alpha=0.3)
    ax.plot(found[kind], place + np.linspace(-0.2, 0.2, len(found[kind])), "o", color=ink, markersize=5)
    ax.annotate(f"{means[kind]:.2f}", (1.0, place), (4, 0), textcoords="offset points", va="center", fontsize=10)
ax.set_yticks(range(len(seeds)), [names[kind] for kind in seeds])
ax.invert_yaxis()
ax.set_xlim(0, 1.0)
ax.grid(True, axis="x")
ax.tick_params(axis="y", length=0)
ax.spines["left"].set_visible(False)
ax.set_xlabel("held-out accuracy")
plot.describe(
    fig,
    "Bars of held-out accuracy. "
    + " ".join(
        f"{names[kind]}: mean {means[kind]:.2f}, seeds {', '.join(f'{x:.2f}' for x in a)}." for kind, a in found.items()
    ),
)
