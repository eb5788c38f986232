"""
How a mask is applied
=====================

Forbidden scores become minus infinity before the softmax. The exponential of minus infinity is zero, and each row
shares out its whole attention among what is left.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

tokens = ["the", "cat", "sat", "down"]
q = np.array([[0, 2, 1, 0], [1, 0, 2, 0], [0, 2, 1, 1], [0, 1, 2, 0]], float)  # (n, d_k) = (4, 4)
k = 2 * np.eye(4)  # (m, d_k) = (4, 4)
mask = ag.causal.materialize(4)  # (4, 4)
scores = ag.attention_scores(q, k)  # (4, 4)
weights = ag.softmax(np.where(mask, scores, -np.inf))  # (4, 4)

fig = plot.figure(
    "causal-application",
    title="Masked before the softmax: the future weighs zero and every row still sums to 1",
    caption=(
        "The example of the chapter: `ag.attention_scores`, `ag.causal`, `ag.softmax`. Rows are queries, columns keys; "
        "hatched pairs are forbidden."
    ),
    size=(6.4, 4.6),
)
axes = fig.subplots(2, 2)
plot.matrix(axes[0, 0], scores, kind="scores", rows=tokens, columns=tokens, fmt=".0f", name="scores", ink=plot.SCORES)
plot.matrix(axes[0, 1], mask, kind="mask", columns=tokens, name="mask", ink=plot.MASK)
plot.matrix(axes[1, 0], scores, kind="scores", rows=tokens, mask=mask, fmt=".0f", name="masked scores", ink=plot.SCORES)
plot.matrix(axes[1, 1], weights, kind="weights", mask=mask, row_sums=True, name="weights", ink=plot.WEIGHTS)
plot.describe(
    fig,
    "Four matrices: scores, causal mask, scores with the upper right triangle forbidden, weights. "
    + plot.describe_matrix(weights, tokens, tokens, mask=mask)
    + " Every row of the weights sums to 1.",
)
