"""
What each pattern can answer
============================

Eight models that differ in their pattern alone were trained on one task: say which digit stands among letters, wherever
it is. How often each is right, place by place.
"""

import numpy as np

from attn_guide import models, plot

names = {
    "dense": "all pairs", "global": "window + global", "bigbird": "BigBird", "strided-window": "window + stride",
    "random": "window + random", "dilated": "dilated, then window", "strided": "stride", "window": "window",
}  # fmt: skip
settings = models.recipe("far-dense").settings
length = settings["length"]
within = np.empty((len(names), length - 1), bool)
right, lines = np.empty(within.shape), []
for row, name in enumerate(names):
    trained = models.load(f"far-{name}")
    within[row] = trained.experiment.within_reach()[1:]
    right[row] = trained.results["within"]
    elsewhere = f", {trained.results['beyond']:.0%} elsewhere" if "beyond" in trained.results else ""
    lines.append(f"{trained.results['within']:.0%} right{elsewhere}")

fig = plot.figure(
    "sparse-quality",
    title="What no path reaches is guessed, in every pattern; what a path reaches may be learned",
    caption=(
        f"Columns are the {length - 1} places where the answer may stand; the question stands before the first. "
        "Filled: "
        "places that a path of two layers connects with the question, darker the more answers from there are right. "
        "Hatched: no path. Behind each row, the share of right answers within reach and elsewhere, in 1,000 "
        "sequences; "
        f"guessing is right once in {settings['digits']}. {settings['steps']} steps of training, seed 0."
    ),
    size=(6.4, 5.6),
)
for ax, (row, label) in zip(fig.subplots(len(names), 1), enumerate(names.values()), strict=True):
    plot.matrix(
        ax, right[row : row + 1].repeat(2, axis=0), kind="weights", mask=within[row : row + 1].repeat(2, axis=0),
        annotate=False, limits=(0, 1.5),
    )  # fmt: skip
    ax.set_title(f"{label}: {lines[row]}", loc="left", fontsize=10, color=plot.INK)
plot.describe(
    fig,
    " ".join(
        f"{label[0].upper() + label[1:]}: {near.mean():.0%} of the places are within reach; {line}."
        for label, near, line in zip(names.values(), within, lines, strict=True)
    ),
)
