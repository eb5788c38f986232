"""
Where the glimpse classifier looks
==================================

Four ways of training where to look, on the same handwritten digits: an average of patches, or one patch at a time.
"""

import numpy as np

from attn_guide import models, plot

kinds = {"soft": "soft", "hard": "REINFORCE", "gumbel": "Gumbel-softmax", "straight-through": "straight-through"}
FRAME = plot.SEQUENTIAL(0.8)  # the image is the same on a dark page, so what stands on it must be too
runs = {kind: models.load(f"glimpse-{kind}") for kind in kinds}
shown = [0, 1, 2]  # the first held-out digits
seen = {kind: run.experiment.look(len(shown)) for kind, run in runs.items()}

fig = plot.figure(
    "soft-digits-looks",
    title="A soft look spreads over patches, a hard look takes one, and often the same one again",
    caption=(
        f"The first {len(shown)} held-out digits of scikit-learn's handwritten digits and the four looks of each model "
        "(seed 0 of `glimpse-soft`, `-hard`, `-gumbel`, `-straight-through` in `attn_guide.models`). The numbers in "
        "a frame say which of the four looks it is, its width how much weight the patch has (weights below 0.15 are "
        "left out)."
    ),
    size=(6.4, 7.6),
)


def short(looks):
    """The numbers of looks, such as 1–4 or 2,4."""
    row = len(looks) > 2 and looks[-1] - looks[0] == len(looks) - 1
    return f"{looks[0]}–{looks[-1]}" if row else ",".join(map(str, looks))


axes = fig.subplots(len(kinds), len(shown))
for line, kind in zip(axes, kinds, strict=True):
    images, weights, labels, answers = seen[kind]
    for ax, image, looks, label, answer in zip(line, images, weights, labels, answers, strict=True):
        mesh = ax.pcolormesh(np.arange(9) - 0.5, np.arange(9) - 0.5, image, cmap=plot.QUIET, vmin=-1, vmax=1)
        mesh.set_edgecolor("face")  # closes the seams that a browser leaves between neighbours
        mesh.set_linewidth(0.3)
        texts = {}
        for i, look in enumerate(looks):
            for r, c in zip(*np.nonzero(look >= 0.15), strict=True):
                texts.setdefault((int(r), int(c)), []).append((i + 1, float(look[r, c])))
        for (r, c), found in texts.items():
            inset = 0.12
            ax.plot(
                2 * c - 0.5 + np.array([inset, 2 - inset, 2 - inset, inset, inset]),
                2 * r - 0.5 + np.array([inset, inset, 2 - inset, 2 - inset, inset]),
                color=FRAME, linewidth=0.8 + 2.2 * max(w for _, w in found),
            )  # fmt: skip
            ax.text(2 * c + 0.5, 2 * r + 0.5, short([i for i, _ in found]), ha="center", va="center", fontsize=10,
                    color=FRAME,
                    bbox={"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.85, "pad": 0.8})  # fmt: skip
        ax.set_xlim(-0.6, 7.6)
        ax.set_ylim(7.6, -0.6)
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_title(f"a {label}, read as {answer}", fontsize=10)
    line[0].set_ylabel(kinds[kind], fontsize=10)


def told(looks):
    """Where the four looks have most weight: row and column from the top left."""
    return ", ".join(f"{int(look.argmax()) // 4 + 1}/{int(look.argmax()) % 4 + 1} ({look.max():.2f})" for look in looks)


plot.describe(
    fig,
    "Handwritten digits with the patches that each model looks at. The patch with most weight in each look, as row and "
    "column: "
    + " ".join(
        f"{kind}: " + "; ".join(f"a {label} read as {answer}: {told(looks)}" for looks, label, answer in
                                zip(weights, labels, answers, strict=True)) + "."
        for kind, (_, weights, labels, answers) in seen.items()
    ),
)  # fmt: skip
