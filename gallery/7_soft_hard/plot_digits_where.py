"""
Where each look goes, over all held-out digits
==============================================

The mean weight of each patch in each of the four looks. Where a look goes to one place for every digit, its map is a
single dark cell.
"""

from attn_guide import models, plot

kinds = {
    "soft": "soft", "hard": "REINFORCE", "gumbel": "Gumbel-softmax", "straight-through": "straight-through",
    "unseen": "patches unseen",
}  # fmt: skip
mean = {kind: models.load(f"glimpse-{kind}").experiment.look(359)[1].mean(axis=0) for kind in kinds}  # (looks, 4, 4)
largest = {kind: m.max(axis=(1, 2)) for kind, m in mean.items()}

fig = plot.figure(
    "soft-digits-where",
    title=f"With patches unseen the first look is the same for {largest['unseen'][0]:.0%} of digits; with patches seen "
    f"no place gets more than {largest['hard'][0]:.0%}",
    caption=(
        "Mean weight of the 4 × 4 patches of the image in each look, over 359 held-out digits; seed 0 of the models "
        '`glimpse-*` of `attn_guide.models`. "Patches unseen" is trained by REINFORCE too, with keys made from places '
        "alone."
    ),
    size=(6.0, 7.4),
)
axes = fig.subplots(len(kinds), 4)
for line, (kind, looks) in zip(axes, mean.items(), strict=True):
    for i, (ax, look) in enumerate(zip(line, looks, strict=True)):
        plot.matrix(ax, look, kind="weights", annotate=False, limits=(0, 1))
        if kind == "soft":
            ax.set_title(f"look {i + 1}", fontsize=10, loc="center")
    line[0].set_ylabel(kinds[kind], fontsize=10)
plot.describe(
    fig,
    "Maps of 4 by 4 patches for five models and four looks. Largest mean weight of a patch in each look: "
    + " ".join(f"{kinds[kind]}: {', '.join(f'{x:.2f}' for x in top)}." for kind, top in largest.items()),
)
