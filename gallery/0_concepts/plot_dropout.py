"""
Dropout on attention weights
============================

Dropout sets some weights to zero and divides the rest by 1 - p. Averaged over draws a row still sums to one; in any
single draw it does not.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

rng = np.random.default_rng(0)
n, p = 6, 0.2
weights = ag.softmax(rng.standard_normal((n, n)))  # (n, n)
dropped = ag.dropout(weights, p, rng)
average = np.mean([ag.dropout(weights, p, rng) for _ in range(5000)], axis=0)
labels = [str(i) for i in range(n)]
sums = dropped.sum(axis=-1)

fig = plot.figure(
    "concepts-dropout",
    title=f"After dropout the rows sum to anything from {sums.min():.2f} to {sums.max():.2f}",
    caption=(
        f"Softmax of standard normal scores, n = {n}, seed 0. Above: the weights. Below: one draw of "
        "`ag.dropout` with "
        f"p = {p}, dropped weights hatched. Over 5,000 draws the mean differs from the weights by at most "
        f"{np.abs(average - weights).max():.3f}."
    ),
    size=(4.4, 6.4),
)
above, below = fig.subplots(2, 1)
for ax, matrix, name in ((above, weights, "weights"), (below, dropped, "one draw")):
    plot.matrix(
        ax,
        matrix,
        kind="weights",
        rows=labels,
        columns=labels,
        mask=matrix > 0,
        row_sums=True,
        limits=(0, 0.8),
        name=name,
        ink=plot.WEIGHTS,
    )
plot.describe(
    fig,
    f"Two {n} by {n} matrices. Above, weights whose rows sum to 1. Below, the same after dropout with p = {p}: "
    f"{int((dropped == 0).sum())} of {n * n} are zero, and the rows sum to {', '.join(f'{s:.2f}' for s in sums)}.",
)
