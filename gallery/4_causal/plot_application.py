"""
Before the softmax or after it
==============================

Forbidden scores become minus infinity before the softmax, and each row shares out its whole attention among what is
left. Zeros that are put into the weights afterwards look alike, and leave rows that the future has had its share of.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["the", "cat", "sat", "down"]
q = np.array([[0, 2, 1, 0], [1, 0, 2, 0], [0, 2, 1, 1], [0, 1, 2, 0]], float)  # (n, d_k) = (4, 4)
k = 2 * np.eye(4)  # (m, d_k) = (4, 4)
mask = ag.causal.materialize(4)  # (4, 4)
scores = ag.attention_scores(q, k)  # (4, 4)
before = ag.softmax(np.where(mask, scores, -np.inf))  # (4, 4)
everything = ag.softmax(scores)  # (4, 4)
after = np.where(mask, everything, 0.0)  # (4, 4)

fig = plot.figure(
    "causal-application",
    title=f"Masked after the softmax, the first row keeps {after[0].sum():.2f} of its attention, and not 1",
    caption=(
        "The example of the chapter: `ag.attention_scores`, `ag.causal`, `ag.softmax`. Top: minus infinity, then the "
        "softmax. Bottom: the softmax, then zeros. Rows are queries, columns keys; hatched pairs are forbidden."
    ),
    size=(6.4, 5.0),
)
axes = fig.subplots(2, 2)
labels = {"rows": tokens, "columns": tokens}
plot.matrix(axes[0, 0], scores, kind="scores", mask=mask, fmt=".0f", name="masked scores", ink=plot.SCORES, **labels)
plot.matrix(axes[0, 1], before, kind="weights", mask=mask, row_sums=True, name="softmax", ink=plot.WEIGHTS)
plot.matrix(axes[1, 0], everything, kind="weights", rows=tokens, name="softmax of all", ink=plot.WEIGHTS)
plot.matrix(axes[1, 1], after, kind="weights", mask=mask, row_sums=True, name="masked weights", ink=plot.WEIGHTS)
plot.describe(
    fig,
    "Two lines of two matrices. Top: masked scores and their softmax. "
    + plot.describe_matrix(before, tokens, tokens, mask=mask)
    + " Every row sums to 1. Bottom: the softmax of all scores, and the same with zeros above the diagonal. Its rows "
    + "sum to "
    + ", ".join(f"{total:.2f}" for total in after.sum(axis=1))
    + ".",
)
