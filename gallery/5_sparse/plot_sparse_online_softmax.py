"""
The online softmax, step by step
================================

Six scores come in three blocks. After each block the weights are the softmax of what has been read, and one factor
repairs what was summed before.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

scores = np.array([1.0, 2.0, 4.0, 0.0, 3.0, 5.0])
steps = list(ag.online_softmax(scores, block_size=2))
exact = ag.softmax(scores)

fig = plot.figure(
    "sparse-online-softmax",
    title="Whenever the maximum rises, one factor puts the old sum on the new footing",
    caption=(
        "`ag.online_softmax` over the scores 1, 2, 4, 0, 3, 5 in blocks of two. Bars: the weights of the scores "
        "read so "
        "far. The last row is `ag.softmax` of all six."
    ),
    size=(6.2, 5.4),
)
for ax, (number, step) in zip(fig.subplots(3, 1), enumerate(steps, 1), strict=True):
    read = step.block.stop
    plot.bars(ax, [f"{s:g}" for s in scores[:read]], step.result[:read], colour=plot.WEIGHTS, fmt=".3f")
    ax.set_xlim(-0.6, len(scores) - 0.4)
    ax.set_ylim(0, 1.2)
    ax.set_title(
        f"block {number}: maximum {step.running_max:g}, old sum × {step.rescale:.3f}, sum now {step.running_sum:.3f}",
        loc="left", fontsize=10, color=plot.MUTED,
    )  # fmt: skip
plot.describe(
    fig,
    " ".join(
        f"After block {number}: maximum {step.running_max:g}, factor {step.rescale:.3f}, sum "
        f"{step.running_sum:.3f}, weights "
        f"{', '.join(f'{w:.3f}' for w in step.result[: step.block.stop])}."
        for number, step in enumerate(steps, 1)
    )
    + f" The softmax of all six is {', '.join(f'{w:.3f}' for w in exact)}.",
)
